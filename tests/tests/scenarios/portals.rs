//! Portals: every byte once and in order, or the connection is closed; nobody hangs, nothing is left behind.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portolan_tests::interposer::{Attack, Interposer};
use portolan_tests::project::free_address;
use portolan_tests::service::{
    STREAM_LIMIT, Unanswering, ask, check_pattern, connect, echoes, end_of, pattern_bytes, reset,
};
use portolan_tests::{Member, Project, Service, eventually, process};

use crate::story::Story;

/// An end of a portal whose other end is gone is closed within this time.
const CLOSED: Duration = Duration::from_secs(5);

#[test]
fn every_byte_arrives_once_and_in_order_in_both_directions() {
    let story = Story::told();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let address = story.inlet;
            thread::spawn(move || {
                const TOTAL: usize = 8 * 1024 * 1024;
                let mut writer = connect(address);
                let mut reader = writer.try_clone().unwrap();
                let sender = thread::spawn(move || {
                    // Pieces of many sizes, so that no buffer boundary is special.
                    let mut offset = 0;
                    let mut size = 1;
                    while offset < TOTAL {
                        let piece = pattern_bytes(offset as u64, size.min(TOTAL - offset));
                        writer.write_all(&piece).unwrap();
                        offset += piece.len();
                        size = size * 3 % 300_007 + 1;
                    }
                });
                let mut buffer = vec![0; 100_000];
                let mut offset = 0;
                while offset < TOTAL {
                    let n = reader.read(&mut buffer).unwrap();
                    assert!(n > 0, "closed after {offset} bytes");
                    assert_eq!(check_pattern(offset as u64, &buffer[..n]), Ok(()));
                    offset += n;
                }
                sender.join().unwrap();
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn the_whole_answer_arrives_when_the_service_closes_right_after_it() {
    const ANSWER: usize = 3_000_000;
    let service = Service::start(|mut stream| {
        let mut request = [0; 4];
        stream.read_exact(&mut request)?;
        stream.write_all(&pattern_bytes(0, ANSWER))
        // The end of the function is the end of the connection.
    });
    let story = Story::told_with(service);
    for _ in 0..10 {
        let mut client = connect(story.inlet);
        client.write_all(b"get!").unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.len(), ANSWER);
        assert_eq!(check_pattern(0, &answer), Ok(()));
    }
}

#[test]
fn everything_that_a_client_sent_before_it_closed_reaches_the_service() {
    const SENT: usize = 3_000_000;
    let (sender, received) = std::sync::mpsc::sync_channel(16);
    let service = Service::start(move |mut stream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        let _ = sender.send(bytes);
        Ok(())
    });
    let story = Story::told_with(service);
    for _ in 0..5 {
        let mut client = connect(story.inlet);
        client.write_all(&pattern_bytes(0, SENT)).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let bytes = received
            .recv_timeout(STREAM_LIMIT)
            .expect("the service sees the end of the stream");
        assert_eq!(bytes.len(), SENT);
        assert_eq!(check_pattern(0, &bytes), Ok(()));
    }
}

#[test]
fn a_client_of_an_outlet_whose_target_is_down_is_closed_within_5_s_and_told_why() {
    let project = Project::start();
    let nobody = free_address();
    let bank = project.bank(nobody);
    let (analysis, inlet) = project.analysis();
    let start = Instant::now();
    let mut client = connect(inlet);
    assert!(end_of(&mut client, CLOSED).is_closed());
    assert!(start.elapsed() < CLOSED, "{:?}", start.elapsed());
    let shown = analysis.show_inlet("inlet");
    assert!(
        shown["last_failure"]
            .as_str()
            .is_some_and(|reason| !reason.is_empty()),
        "{shown}"
    );
    assert!(
        bank.home.logs().contains(&nobody.port().to_string()),
        "the outlet's log does not name the target"
    );
    // The failure is the target's, not the portal's.
    let back = Service::start_on(std::net::TcpListener::bind(nobody).unwrap(), |mut stream| {
        let mut buffer = [0; 1000];
        loop {
            let n = stream.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            stream.write_all(&buffer[..n])?;
        }
    });
    eventually(
        "it works when the target is there",
        Duration::from_secs(10),
        || echoes(inlet),
    );
    assert!(back.accepted() > 0);
}

#[test]
fn a_client_of_a_target_that_never_answers_is_closed_too() {
    let project = Project::start();
    let target = Unanswering::start();
    let _bank = project.bank(target.address);
    let (_analysis, inlet) = project.analysis();
    let mut client = connect(inlet);
    assert!(
        end_of(&mut client, Duration::from_secs(15)).is_closed(),
        "the connection attempt has no time-out"
    );
}

#[test]
fn clients_that_go_away_while_the_target_is_awaited_leave_nothing_behind() {
    let project = Project::start();
    let target = Unanswering::start();
    let bank = project.bank(target.address);
    let (analysis, inlet) = project.analysis();
    let before = (analysis.settled_workers(), bank.settled_workers());
    for _ in 0..20 {
        drop(connect(inlet));
    }
    eventually(
        "the workers of both sides are gone",
        Duration::from_secs(20),
        || analysis.workers() <= before.0 && bank.workers() <= before.1,
    );
}

#[test]
fn many_connections_leave_no_workers_and_no_sockets_behind() {
    let story = Story::told();
    assert!(echoes(story.inlet));
    let files = |member: &Member| process::open_files(member.process());
    let before = (
        story.analysis.settled_workers(),
        story.bank.settled_workers(),
        files(&story.analysis),
        files(&story.bank),
    );
    for round in 0..100 {
        let mut client = connect(story.inlet);
        assert_eq!(ask(&mut client, b"x").unwrap(), b"x");
        if round % 2 == 0 {
            reset(client)
        } else {
            drop(client)
        }
    }
    eventually(
        "workers and sockets are back to what they were",
        Duration::from_secs(10),
        || {
            story.analysis.workers() <= before.0
                && story.bank.workers() <= before.1
                && files(&story.analysis) <= before.2 + 2
                && files(&story.bank) <= before.3 + 2
        },
    );
    assert_eq!(story.service.open(), 0);
}

#[test]
fn a_client_that_resets_its_connection_ends_the_services_connection() {
    let story = Story::told();
    let mut client = connect(story.inlet);
    assert_eq!(ask(&mut client, b"x").unwrap(), b"x");
    eventually("the service has the connection", CLOSED, || {
        story.service.open() == 1
    });
    reset(client);
    eventually("the service's connection is closed", CLOSED, || {
        story.service.open() == 0
    });
}

#[test]
fn a_service_that_resets_a_connection_ends_the_clients_connection() {
    let service = Service::start(|mut stream| {
        stream.read_exact(&mut [0])?;
        stream.write_all(b"x")?;
        reset(stream);
        Ok(())
    });
    let story = Story::told_with(service);
    let mut client = connect(story.inlet);
    // A reset may overtake what was sent before it.
    let _ = ask(&mut client, b"x");
    assert!(end_of(&mut client, CLOSED).is_closed());
}

#[test]
fn the_end_of_one_stream_does_not_hold_up_the_others() {
    // Ends the connection at the first Q; what the client still sends is on its way then.
    let service = Service::start(|mut stream| {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let n = stream.read(&mut buffer)?;
            if n == 0 || buffer[0] == b'Q' {
                return Ok(());
            }
            stream.write_all(&buffer[..n])?;
        }
    });
    let story = Story::told_with(service);
    let done = Arc::new(AtomicBool::new(false));
    let watch = {
        let (done, address) = (done.clone(), story.inlet);
        thread::spawn(move || {
            let mut client = connect(address);
            let mut worst = Duration::ZERO;
            while !done.load(Ordering::Relaxed) {
                let start = Instant::now();
                ask(&mut client, b"ping").unwrap();
                worst = worst.max(start.elapsed());
            }
            worst
        })
    };
    for _ in 0..5 {
        let mut client = connect(story.inlet);
        // Fails as soon as the end has come through.
        for _ in 0..200 {
            if client.write_all(&[b'Q'; 16 * 1024]).is_err() {
                break;
            }
        }
        end_of(&mut client, CLOSED);
    }
    done.store(true, Ordering::Relaxed);
    let worst = watch.join().unwrap();
    assert!(
        worst < Duration::from_millis(1500),
        "another stream waited {worst:?}"
    );
}

#[test]
fn when_the_hub_is_lost_both_ends_of_an_open_stream_are_closed() {
    let story = Story::told();
    let mut client = connect(story.inlet);
    assert_eq!(ask(&mut client, b"x").unwrap(), b"x");
    story.project.home.kill_processes();
    assert!(
        end_of(&mut client, Duration::from_secs(10)).is_closed(),
        "the client hangs on a dead path"
    );
    eventually(
        "the service's connection is closed",
        Duration::from_secs(10),
        || story.service.open() == 0,
    );
}

#[test]
fn when_the_inlets_node_is_killed_the_services_connection_is_closed() {
    let story = Story::told();
    let mut client = connect(story.inlet);
    assert_eq!(ask(&mut client, b"x").unwrap(), b"x");
    story.analysis.home.kill_processes();
    // Through a relay only the portal's own liveness can tell: nobody sends an end of file.
    eventually(
        "the service's connection is closed",
        Duration::from_secs(60),
        || story.service.open() == 0,
    );
}

#[test]
fn over_a_direct_connection_the_services_connection_ends_with_the_transports() {
    let service = Service::echo();
    let project = Project::start();
    let address = free_address();
    let bank = project.home_of_a_bank_at(address, service.address);
    let link = Interposer::start(address);
    let analysis = project.member("analysis", &["--attribute", "role=client"]);
    let route = format!(
        "/ip4/127.0.0.1/tcp/{}/secure/api/service/outlet",
        link.address.port()
    );
    let inlet = analysis.inlet("direct", &["--to", &route]);
    analysis.inlet_is_up("direct");
    let mut client = connect(inlet);
    assert_eq!(ask(&mut client, b"x").unwrap(), b"x");
    link.cut();
    eventually(
        "the service's connection is closed",
        Duration::from_secs(10),
        || service.open() == 0,
    );
    assert!(end_of(&mut client, Duration::from_secs(10)).is_closed());
    link.mend();
    eventually("the inlet recovers", Duration::from_secs(30), || echoes(inlet));
    drop(bank);
}

/// What a client gets back is right up to where it ends, whatever happens on the way; and afterwards it works again.
fn under_attack(attack: Attack) {
    let (project, link) = Project::start_behind_an_interposer();
    let story = Story::told_at(project, Service::echo());
    let mut client = connect(story.inlet);
    client.set_read_timeout(Some(Duration::from_secs(45))).unwrap();
    let mut writer = client.try_clone().unwrap();
    const TOTAL: usize = 4_000_000;
    let sender = thread::spawn(move || {
        for offset in (0..TOTAL).step_by(20_000) {
            if writer.write_all(&pattern_bytes(offset as u64, 20_000)).is_err() {
                return;
            }
        }
    });
    link.attack(attack);
    let mut offset = 0;
    let mut buffer = vec![0; 64 * 1024];
    while offset < TOTAL {
        match client.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(n) => {
                assert_eq!(
                    check_pattern(offset as u64, &buffer[..n]),
                    Ok(()),
                    "a wrong byte was delivered"
                );
                offset += n;
            }
        }
    }
    assert_eq!(link.attacks(), 1, "the attack did not take place");
    drop(client);
    sender.join().unwrap();
    eventually("the portal carries again", Duration::from_secs(45), || {
        echoes(story.inlet)
    });
}

#[test]
fn a_record_with_a_flipped_bit_delivers_no_wrong_byte() {
    under_attack(Attack::FlipBit(8_000));
}

#[test]
fn a_replayed_record_delivers_no_byte_twice() {
    under_attack(Attack::Replay(8_000));
}

#[test]
fn a_side_that_skips_the_portals_handshake_alone_is_refused_or_closed_and_never_left_hanging() {
    let story = Story::told();
    let from = free_address().to_string();
    let outcome = story.analysis.home.run([
        "tcp-inlet",
        "create",
        "skipping",
        "--from",
        &from,
        "--via",
        "bank",
        "--skip-handshake",
    ]);
    if outcome.succeeded() {
        let mut client = connect(from.parse().unwrap());
        match ask(&mut client, b"is anybody there") {
            Ok(answer) => assert_eq!(answer, b"is anybody there"),
            Err(_) => assert!(
                end_of(&mut client, CLOSED).is_closed(),
                "the client was left hanging"
            ),
        }
    } else {
        outcome.says(&["handshake"]);
    }
    assert!(echoes(story.inlet));
}

#[test]
fn a_stray_message_to_an_outlet_opens_no_connection_to_the_target() {
    let story = Story::told();
    let before = story.service.accepted();
    let route = "/project/default/service/forward_to_bank/secure/api/service/outlet";
    story
        .analysis
        .home
        .run(["message", "send", "stray", "--to", route, "--timeout", "2s"]);
    assert_eq!(story.service.accepted(), before);
    assert!(echoes(story.inlet));
}

#[test]
fn a_service_that_reads_nothing_holds_up_only_its_own_stream() {
    let deaf = Service::deaf();
    let story = Story::told();
    story.bank.home.ok([
        "tcp-outlet",
        "create",
        "--from",
        "deaf",
        "--to",
        &deaf.address.to_string(),
    ]);
    let inlet = story
        .analysis
        .inlet("to-deaf", &["--via", "bank", "--to", "deaf"]);
    story.analysis.inlet_is_up("to-deaf");
    let before = process::resident_kib(story.bank.process());
    let mut client = connect(inlet);
    client.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let chunk = vec![0; 64 * 1024];
    let mut taken = 0_usize;
    // 64 MiB are more than any bounded buffer on the way takes.
    while taken < 64 * 1024 * 1024 && client.write_all(&chunk).is_ok() {
        taken += chunk.len();
    }
    assert!(echoes(story.inlet), "a slow reader stops the other streams");
    let grown = process::resident_kib(story.bank.process()).saturating_sub(before);
    assert!(
        grown < 32 * 1024,
        "the outlet's node grew by {grown} KiB for a reader that does not read"
    );
}

#[test]
fn an_inlet_with_more_clients_than_one_service_can_take_at_once_loses_none() {
    let story = Story::told();
    let mut clients: Vec<_> = (0..200).map(|_| connect(story.inlet)).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        let text = format!("client {index}");
        assert_eq!(ask(client, text.as_bytes()).unwrap(), text.as_bytes());
    }
}

#[test]
fn after_a_crash_of_every_node_the_portal_is_there_again() {
    let story = Story::told();
    let hub = story.project.node_name();
    for home in [&story.project.home, &story.bank.home, &story.analysis.home] {
        home.kill_processes();
    }
    story.project.home.ok(["node", "start", &hub]);
    story.bank.home.ok(["node", "start", "bank"]);
    story.analysis.home.ok(["node", "start", "analysis"]);
    eventually("the portal carries", Duration::from_secs(20), || {
        echoes(story.inlet)
    });
}
