//! Tests of profiles that processes take of themselves, against admin endpoints of their own.

use std::cell::RefCell;
use std::rc::Rc;

use tokenlag_profiling::folded;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::LocalSet;

use super::*;

/// An admin endpoint that begins profiles and hands them over, of one sample each; from its `fails`th request on it does not.
async fn endpoint(fails: usize) -> (BaseUrl, Rc<RefCell<Vec<String>>>, watch::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = format!("http://{}", listener.local_addr().unwrap());
    let asked = Rc::new(RefCell::new(Vec::new()));
    let (count, counted) = watch::channel(0);
    let noted = Rc::clone(&asked);
    spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let line = String::from_utf8(request).unwrap();
            let line = line.lines().next().unwrap().to_owned();
            let body = match line.contains(STOP) {
                true => protobuf::encode(&folded::parse("proxy-0;f 1\n").unwrap(), 199.0),
                false => b"sampling\n".to_vec(),
            };
            noted.borrow_mut().push(line);
            let number = noted.borrow().len();
            let status = if number >= fails { "500 No" } else { "200 OK" };
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&body).await.unwrap();
            count.send_replace(number);
        }
    });
    (admin.parse().unwrap(), asked, counted)
}

/// An admin endpoint that begins a profile and never hands it over, and whether it was asked for that.
async fn never_stops() -> (BaseUrl, oneshot::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = oneshot::channel();
    spawn_local(async move {
        let mut held = Vec::new();
        for answer in [&b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..], b""] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer).await.unwrap();
            held.push(stream);
        }
        let _ = tell.send(());
        std::future::pending::<()>().await;
    });
    (admin.parse().unwrap(), told)
}

fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, work);
}

#[test]
fn a_long_turn_is_fetched_in_parts() {
    run(async {
        let (admin, asked, mut counted) = endpoint(usize::MAX).await;
        let part = Duration::from_millis(1);
        let remote = Remote::start(End::Proxy, &admin, part).await.unwrap();
        counted.wait_for(|count| *count >= 7).await.unwrap();
        let mut sampled = Vec::new();
        remote.end().finish(&mut sampled).await.unwrap();
        let asked = asked.borrow();
        // Each that was begun was fetched.
        for pair in asked.chunks(2) {
            assert!(
                pair[0].contains(START) && pair[1].contains(STOP),
                "{asked:?}"
            );
        }
        let samples: u64 = sampled.iter().map(|(_, stacks)| stacks.total()).sum();
        assert_eq!(
            (samples, sampled.len()),
            (asked.len() as u64 / 2, asked.len() / 2)
        );
        assert!(samples >= 4);
    });
}

#[test]
fn what_was_fetched_before_a_proxy_failed_is_kept() {
    run(async {
        let (admin, _, mut counted) = endpoint(6).await;
        let part = Duration::from_millis(1);
        let remote = Remote::start(End::Proxy, &admin, part).await.unwrap();
        counted.wait_for(|count| *count >= 6).await.unwrap();
        let mut sampled = Vec::new();
        let error = remote.end().finish(&mut sampled).await.unwrap_err();
        let told = format!("{error:#}");
        assert!(
            told.contains("the profile of the proxy") && told.contains("500"),
            "{told}"
        );
        assert_eq!(sampled.len(), 2);
    });
}

#[test]
fn all_ends_are_stopped_before_any_is_waited_for() {
    run(async {
        let (admin, asked, mut counted) = endpoint(usize::MAX).await;
        let (silent, is_asked) = never_stops().await;
        let carrier = |end, admin: &BaseUrl| Carrier {
            end,
            admin: admin.clone(),
            pid: None,
        };
        // The first never hands over what it has.
        let carriers = [carrier(End::Sidecar, &silent), carrier(End::Proxy, &admin)];
        let mut own = Own::start(&carriers).await.unwrap();
        own.go().await.unwrap();
        own.halt().await.unwrap();
        // The client is not sampled any more.
        assert!(matches!(own.client, Client::Sampled(_)));
        assert_eq!(asked.borrow().len(), 1);
        let mut sampled = Vec::new();
        select! {
            _ = own.finish("", &mut sampled) => panic!("the sidecar does not answer"),
            _ = async {
                is_asked.await.unwrap();
                counted.wait_for(|count| *count == 2).await.unwrap();
            } => {}
        }
        assert!(asked.borrow()[1].contains(STOP));
    });
}

#[test]
fn a_short_turn_is_one_part() {
    run(async {
        let (admin, asked, _) = endpoint(usize::MAX).await;
        let remote = Remote::start(End::Sidecar, &admin, PART).await.unwrap();
        let mut sampled = Vec::new();
        remote.end().finish(&mut sampled).await.unwrap();
        assert_eq!(asked.borrow().len(), 2);
        assert_eq!(sampled.len(), 1);
    });
}
