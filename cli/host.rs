//! What kind of machine this is, for the record.

use std::fs;

use tokenlag_probes::Host;

use crate::pinning;

/// The machine that this process runs on. What cannot be read stays empty.
pub fn read() -> Host {
    Host {
        kernel: format!(
            "{} {}",
            line("/proc/sys/kernel/ostype"),
            line("/proc/sys/kernel/osrelease")
        ),
        cpu_model: cpu_model(),
        cores: pinning::cores().len() as u32,
        congestion_control: line("/proc/sys/net/ipv4/tcp_congestion_control"),
        loopback_mtu: line("/sys/class/net/lo/mtu").parse().ok(),
    }
}

/// The frequency governor of the first core, where the system tells.
pub fn governor() -> Option<String> {
    Some(line(
        "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    ))
    .filter(|name| !name.is_empty())
}

fn line(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = info.lines().find(|line| line.starts_with("model name"));
    let name = named.and_then(|line| line.split_once(':'));
    name.map(|(_, name)| name.trim().to_owned())
        .unwrap_or_default()
}
