//! Signals of a command behind a link: it gets each once, whoever sends it, and its end is that of `tokenlag link`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use crate::support::{heeding_signals, tokenlag, wait_until};
use crate::{PATIENCE, is_used, may_link, namespace_of};

/// In its environment a process is told to be the command: this file's own program, since shells forget signals that come as
/// they go to sleep.
const TELLS: &str = "TOKENLAG_TEST_TELLS";
/// What is before each of its lines.
const TELLING: &str = "telling: ";

#[tokio::test]
async fn a_command_that_tells_what_it_gets() {
    if std::env::var_os(TELLS).is_none() {
        return;
    }
    let said = |what: &str| println!("\n{TELLING}{what}");
    let heard = |kind| signal(kind).expect("signals can be heard");
    let mut hangup = heard(SignalKind::hangup());
    let mut interrupt = heard(SignalKind::interrupt());
    let mut quit = heard(SignalKind::quit());
    let mut terminate = heard(SignalKind::terminate());
    let mut user = heard(SignalKind::user_defined1());
    let mut end = heard(SignalKind::user_defined2());
    said(&std::process::id().to_string());
    loop {
        tokio::select! {
            biased;
            _ = hangup.recv() => said("HUP"),
            _ = interrupt.recv() => said("INT"),
            _ = quit.recv() => said("QUIT"),
            _ = terminate.recv() => said("TERM"),
            _ = user.recv() => said("USR1"),
            _ = end.recv() => std::process::exit(7),
        }
    }
}

/// A command behind a link that tells what it gets.
struct Telling {
    child: Child,
    said: BufReader<ChildStdout>,
    /// The command's own number.
    pid: String,
}

impl Telling {
    fn start(mut command: Command) -> Self {
        command.env(TELLS, "1");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = child.spawn().expect("the command starts");
        let stdout = child.stdout.take().expect("it has a standard output");
        let mut telling = Self {
            child,
            said: BufReader::new(stdout),
            pid: String::new(),
        };
        telling.pid = telling.line();
        telling
    }

    fn behind_a_link() -> Command {
        let own = std::env::current_exe().expect("the test has a file");
        let own = own.to_str().expect("it has a name");
        let test = "signals::a_command_that_tells_what_it_gets";
        let link = ["link", "--rtt", "4ms", "--", own, test];
        tokenlag(&[&link[..], &["--exact", "--nocapture"]].concat())
    }

    /// What it says next; nothing where it has ended.
    fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            let length = self.said.read_line(&mut line).expect("it can be read");
            match line.trim().strip_prefix(TELLING) {
                Some(told) => return told.to_owned(),
                None if length == 0 => return String::new(),
                None => {}
            }
        }
    }

    /// Sends the signal to `tokenlag link` alone.
    fn kill(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it runs");
    }

    /// Whether `tokenlag link` has no signal that it has not looked at.
    fn has_read_all(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let mut waiting = status
            .lines()
            .filter(|line| line.starts_with("SigPnd:") || line.starts_with("ShdPnd:"));
        waiting.all(|line| line.ends_with("\t0000000000000000"))
    }

    /// Has the command end, and fails where it had got more than it told.
    fn end(mut self) {
        let namespace = namespace_of(&self.pid).expect("the command runs");
        self.kill(Signal::SIGUSR2);
        assert_eq!(self.line(), "", "a signal came twice");
        assert_eq!(self.child.wait().expect("it ends").code(), Some(7));
        wait_until("the command's network is gone", PATIENCE, || {
            !is_used(&namespace)
        });
    }
}

/// The leader of a session in the foreground of a terminal of its own, with its output elsewhere; and the terminal's keys.
fn at_a_terminal() -> (File, Command) {
    let terminal = openpty(None, None).expect("there are terminals");
    // Its keys are nobody else's, so that it is closed where they are dropped.
    fcntl(&terminal.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("it is open");
    // A key that follows another at once is not to be forgotten with what was typed before that one.
    let mut settings = tcgetattr(&terminal.slave).expect("it is a terminal");
    settings.local_flags |= LocalFlags::NOFLSH;
    tcsetattr(&terminal.slave, SetArg::TCSANOW, &settings).expect("it can be set");
    let link = heeding_signals(&Telling::behind_a_link());
    let mut command = Command::new("setsid");
    command
        .arg("--ctty")
        .arg(link.get_program())
        .args(link.get_args())
        .stdin(Stdio::from(terminal.slave));
    for (name, value) in link.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    (File::from(terminal.master), command)
}

#[test]
fn each_signal_reaches_the_command_once() {
    if !may_link() {
        return;
    }
    let mut telling = Telling::start(heeding_signals(&Telling::behind_a_link()));
    for _ in 0..3 {
        for (signal, name) in [
            (Signal::SIGHUP, "HUP"),
            (Signal::SIGINT, "INT"),
            (Signal::SIGQUIT, "QUIT"),
            (Signal::SIGTERM, "TERM"),
            (Signal::SIGUSR1, "USR1"),
        ] {
            telling.kill(signal);
            assert_eq!(telling.line(), name);
        }
    }
    telling.end();
}

#[test]
fn what_a_terminal_tells_reaches_the_command_once() {
    if !may_link() {
        return;
    }
    let (mut keys, command) = at_a_terminal();
    let mut telling = Telling::start(command);
    for _ in 0..5 {
        // Ctrl-C and Ctrl-\, as the terminal's settings have them.
        for (key, name) in [(b"\x03", "INT"), (b"\x1c", "QUIT")] {
            keys.write_all(key).expect("somebody is at the terminal");
            assert_eq!(telling.line(), name);
        }
    }
    // In the foreground, from elsewhere. A signal that comes while one of its number waits to be read is none.
    wait_until("what the terminal told is read", PATIENCE, || {
        telling.has_read_all()
    });
    telling.kill(Signal::SIGINT);
    assert_eq!(telling.line(), "INT");
    telling.end();
}

#[test]
fn a_terminal_that_is_closed_hangs_the_command_up() {
    if !may_link() {
        return;
    }
    let (terminal, command) = at_a_terminal();
    let mut telling = Telling::start(command);
    drop(terminal);
    assert_eq!(telling.line(), "HUP");
    telling.end();
}

#[test]
fn a_command_that_a_signal_ended_ends_the_link_so() {
    if !may_link() {
        return;
    }
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGUSR1,
    ] {
        // Its line comes from what heeds signals; a shell that is about to become it would forget one. It leaves no core.
        let script = "ulimit -c 0; exec tail -n 1 -f Cargo.toml";
        let link = tokenlag(&["link", "--", "bash", "-c", script]);
        let mut command = heeding_signals(&link);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let stdout = child.stdout.take().expect("it has a standard output");
        let mut said = BufReader::new(stdout);
        said.read_line(&mut String::new()).expect("it can be read");
        kill(Pid::from_raw(child.id() as i32), signal).expect("it runs");
        let status = child.wait().expect("it ends");
        assert_eq!(
            (status.code(), status.signal()),
            (Some(128 + signal as i32), None),
            "{signal}"
        );
    }
}
