//! Hostile peers: whatever they send, a node goes on, small, and serves the others.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use portolan_tests::project::free_address;
use portolan_tests::raw::{Peer, VERSION, head, message};
use portolan_tests::service::{echoes, end_of};
use portolan_tests::{Home, Project, eventually, process, skip};

use crate::story::Story;

/// A connection that breaks the protocol is closed within this time.
const CLOSED: Duration = Duration::from_secs(3);
/// A connection that does not go on is closed within this time.
const EXPIRED: Duration = Duration::from_secs(60);

/// The bytes of one frame.
fn frame(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u32).to_be_bytes()[..], message].concat()
}

/// Message bytes with a route of `hops` addresses `a`.
fn long_route(hops: u64) -> Vec<u8> {
    let mut out = vec![0x83];
    head(&mut out, 4, hops);
    for _ in 0..hops {
        out.extend_from_slice(&[0x82, 0x00, 0x41, b'a']);
    }
    out.extend_from_slice(&[0x80, 0x40]);
    out
}

/// A hub's listener is open to the world: this is what the world sends.
fn hub() -> (Project, u32) {
    let project = Project::start();
    let pid = project.processes()[0];
    (project, pid)
}

fn still_serves(project: &Project, pid: u32) {
    assert_eq!(project.processes(), [pid], "the hub's process is another one");
    Home::new().ok(["project", "enroll", &project.ticket(&[])]);
}

#[test]
fn a_peer_that_breaks_the_framing_is_closed_and_the_node_goes_on() {
    let (project, pid) = hub();
    let mut oversize = vec![VERSION];
    oversize.extend_from_slice(&(16 * 1024 * 1024 + 1_u32).to_be_bytes());
    let mut too_many_hops = vec![VERSION];
    too_many_hops.extend_from_slice(&frame(&{
        let mut claim = vec![0x83];
        head(&mut claim, 4, u64::MAX);
        claim
    }));
    let mut nested = vec![VERSION];
    nested.extend_from_slice(&frame(&vec![0x81; 100_000]));
    let cases: [(&str, Vec<u8>); 12] = [
        (
            "garbage",
            (0..4096_u32)
                .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
                .collect(),
        ),
        ("an HTTP request", b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n".to_vec()),
        (
            "a TLS hello",
            [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 500]].concat(),
        ),
        ("another version", vec![2]),
        ("version 0", vec![0]),
        ("a length above the limit", oversize),
        ("the greatest length", [&[VERSION][..], &[0xff; 4]].concat()),
        ("an empty frame", vec![VERSION, 0, 0, 0, 0]),
        (
            "a truncated array",
            [&[VERSION][..], &frame(&[0x83, 0x80])].concat(),
        ),
        (
            "an address cut short",
            [
                &[VERSION][..],
                &frame(&[0x83, 0x81, 0x82, 0x00, 0x58, 0xff, b'a']),
            ]
            .concat(),
        ),
        ("more hops than there are bytes", too_many_hops),
        ("arrays in arrays in arrays", nested),
    ];
    for (what, bytes) in cases {
        let mut peer = Peer::connect(project.address);
        peer.send(&bytes);
        assert!(peer.end(CLOSED).is_closed(), "{what}: the connection stays open");
    }
    still_serves(&project, pid);
}

#[test]
fn a_route_with_a_million_hops_costs_neither_memory_nor_the_node() {
    let (project, pid) = hub();
    let before = process::resident_kib(pid);
    let bytes = frame(&long_route(1_000_000));
    for _ in 0..3 {
        let mut peer = Peer::greet(project.address);
        peer.send(&bytes);
        peer.end(CLOSED);
    }
    let grown = process::resident_kib(pid).saturating_sub(before);
    assert!(grown < 24 * 1024, "the hub keeps {grown} KiB");
    still_serves(&project, pid);
}

#[test]
fn headers_that_announce_16_mib_take_no_memory_before_the_bytes_come() {
    let (project, pid) = hub();
    let before = process::resident_kib(pid);
    let mut peers: Vec<Peer> = (0..20).map(|_| Peer::greet(project.address)).collect();
    for peer in &mut peers {
        peer.send(&(16 * 1024 * 1024_u32).to_be_bytes());
        peer.send(&[0x83; 1000]);
    }
    // Answered only when what came before on other connections has been seen, too.
    still_serves(&project, pid);
    let grown = process::peak_resident_kib(pid).saturating_sub(before);
    assert!(grown < 16 * 1024, "20 headers took {grown} KiB");
}

#[test]
fn a_stalled_half_frame_and_a_silent_connection_are_closed() {
    let (project, pid) = hub();
    let silent = Peer::connect(project.address);
    let mut half_length = Peer::greet(project.address);
    half_length.send(&[0, 0]);
    let mut half_frame = Peer::greet(project.address);
    half_frame.send(&frame(&message(&[b"api"], &[b"me"], &[0; 200]))[..100]);
    // One byte now and then must not keep a frame open for ever.
    let mut drip = Peer::greet(project.address);
    drip.send(&1000_u32.to_be_bytes());
    let start = Instant::now();
    let (mut closed, mut dripping) = (Vec::new(), true);
    for (what, mut peer) in [
        ("silent", silent),
        ("half a length", half_length),
        ("half a frame", half_frame),
    ] {
        let waiting = Instant::now();
        while waiting.elapsed() < EXPIRED {
            if peer.end(Duration::from_secs(1)).is_closed() {
                closed.push(what);
                break;
            }
            if dripping {
                dripping = drip.stream.write_all(&[0x83]).is_ok();
            }
        }
    }
    assert_eq!(
        closed,
        ["silent", "half a length", "half a frame"],
        "after {:?}",
        start.elapsed()
    );
    eventually("the dripping peer is closed", EXPIRED, || {
        drip.stream.write_all(&[0x83]).is_err()
    });
    still_serves(&project, pid);
}

#[test]
fn abandoned_handshakes_cost_little_and_expire() {
    let (project, pid) = hub();
    let round = |count: u32| {
        let mut peer = Peer::greet(project.address);
        for n in 0..count {
            // Message 1 of a handshake is 32 bytes of a public key; any will do for a start.
            let mut key = [9_u8; 32];
            key[..4].copy_from_slice(&n.to_le_bytes());
            peer.send_frame(&message(&[b"api"], &[format!("peer{n}").as_bytes()], &key));
        }
        // As many as may be unfinished over one connection are answered at once, the others by and by: the peer leaves.
        let _ = peer.read_version();
        for _ in 0..64 {
            peer.read_frame(Duration::from_secs(10)).expect("an answer");
        }
    };
    round(300);
    let before = process::resident_kib(pid);
    for _ in 0..4 {
        round(1000);
    }
    let grown = process::resident_kib(pid).saturating_sub(before);
    assert!(grown < 16 * 1024, "4000 abandoned handshakes took {grown} KiB");
    still_serves(&project, pid);
}

#[test]
fn a_name_with_a_hash_in_an_address_harms_nobody() {
    let (project, pid) = hub();
    for address in [
        &b"0#echo"[..],
        b"1#127.0.0.1:9",
        b"a#b#c",
        b"#",
        b"",
        b"\xff\xfe",
        &[b'a'; 60_000],
    ] {
        let mut peer = Peer::greet(project.address);
        peer.send_frame(&message(&[address], &[address], b"\x05hello"));
        peer.send_frame(&message(&[b"api", address], &[], b""));
        peer.end(Duration::from_millis(300));
    }
    still_serves(&project, pid);
}

#[test]
fn a_node_connects_nowhere_because_a_route_of_a_stranger_says_so() {
    let (project, pid) = hub();
    let target = portolan_tests::Service::echo();
    // An address of the TCP transport (type 1) as a hop.
    let text = target.address.to_string();
    let mut out = vec![0x83, 0x81, 0x82, 0x01];
    head(&mut out, 2, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(&[0x80, 0x41, 0x00]);
    let mut peer = Peer::greet(project.address);
    peer.send_frame(&out);
    peer.end(Duration::from_secs(1));
    assert_eq!(target.accepted(), 0);
    still_serves(&project, pid);
}

#[test]
fn many_connections_of_a_stranger_do_not_lock_out_a_member() {
    let story = Story::told();
    let strangers: Vec<TcpStream> = (0..500)
        .map_while(|_| TcpStream::connect(story.project.address).ok())
        .collect();
    assert!(echoes(story.inlet));
    drop(strangers);
    assert!(echoes(story.inlet));
}

#[test]
fn out_of_file_descriptors_a_node_waits_and_does_not_spin() {
    let home = Home::new();
    let address = free_address();
    let mut command = Command::new("bash");
    command
        .args(["-c", "ulimit -n 80; exec \"$@\"", "bash"])
        .arg(portolan_tests::binary::portolan());
    command.args([
        "node",
        "create",
        "n1",
        "--foreground",
        "--tcp-listener-address",
        &address.to_string(),
    ]);
    home.furnish(&mut command);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id();
    eventually("the node listens", Duration::from_secs(15), || {
        TcpStream::connect(address).is_ok()
    });
    let greeted = |address: SocketAddr| {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
        stream.write_all(&[VERSION]).ok()?;
        Some(stream)
    };
    let crowd: Vec<TcpStream> = (0..200).map_while(|_| greeted(address)).collect();
    let before = process::cpu_time(pid);
    // A measuring time, not a wait.
    std::thread::sleep(Duration::from_secs(2));
    let used = process::cpu_time(pid) - before;
    let alive = process::is_alive(pid);
    drop(crowd);
    eventually("it accepts again", Duration::from_secs(15), || {
        TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok_and(|mut stream| {
            let mut version = [0];
            stream.set_read_timeout(Some(Duration::from_secs(2))).is_ok()
                && std::io::Read::read_exact(&mut stream, &mut version).is_ok()
                && version == [VERSION]
        })
    });
    let _ = child.kill();
    let _ = child.wait();
    assert!(alive, "the node ended when it had no descriptors left");
    assert!(
        used < Duration::from_secs(1),
        "{used:?} of CPU in 2 s with nothing to do"
    );
}

#[test]
fn accepted_connections_have_keep_alive() {
    if !skip::unless_installed("ss") {
        return;
    }
    let (project, _) = hub();
    let peer = Peer::greet(project.address);
    let own = peer.stream.local_addr().unwrap();
    eventually(
        "the accepted socket has a keep-alive timer",
        Duration::from_secs(5),
        || {
            let mut command = Command::new("ss");
            command.args([
                "-Htno",
                "state",
                "established",
                "sport",
                "=",
                &format!(":{}", project.address.port()),
            ]);
            let listed = portolan_tests::home::run(command, Duration::from_secs(10)).stdout;
            listed
                .lines()
                .any(|line| line.contains(&own.to_string()) && line.contains("timer:(keepalive"))
        },
    );
    // Nothing was closed meanwhile.
    let mut stream = peer.stream;
    assert!(!end_of(&mut stream, Duration::from_millis(100)).is_closed());
}

#[test]
fn refusals_do_not_flood_the_log() {
    let (project, _) = hub();
    let before = project.home.logs().len();
    let mut peer = Peer::greet(project.address);
    for _ in 0..20_000 {
        peer.send_frame(&message(&[b"not_for_you"], &[b"me"], b"\x01x"));
    }
    peer.end(Duration::from_secs(1));
    let grown = project.home.logs().len() - before;
    assert!(grown < 256 * 1024, "20000 refusals wrote {grown} bytes of log");
}
