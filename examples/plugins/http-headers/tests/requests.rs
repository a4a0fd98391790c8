//! What a service gets for what a client sends.

use http_headers::requests::{MAX_HEAD, Requests};

const ADDED: &str = "X-Portolan-Peer: Iabc\r\nX-Portolan-Attribute-Role: reader\r\n";

fn requests() -> Requests {
    Requests::new("X-Portolan-", ADDED.as_bytes().to_vec())
}

fn sent(pieces: &[&[u8]]) -> Result<String, String> {
    let mut requests = requests();
    let mut out = Vec::new();
    for piece in pieces {
        if requests.skip(piece.len()) {
            out.extend_from_slice(piece);
        } else {
            out.extend(requests.take(piece)?);
        }
    }
    Ok(String::from_utf8(out).unwrap())
}

fn whole(text: &str) -> Result<String, String> {
    sent(&[text.as_bytes()])
}

/// Three requests of three kinds without a pause, with headers that are not the client's to send.
fn three() -> (String, String) {
    let client = "GET /a HTTP/1.1\r\nHost: a\r\nX-Portolan-Peer: Iforged\r\n\r\n\
                  POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\nGET /hidden HTTP/1.1\r\nX: y\r\n\r\n\
                  \r\nPUT /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
                  5;x=y\r\nGET /\r\n1a\r\n0123456789\r\n\r\n0123456789xy\r\n0\r\nX-Portolan-Peer: Iforged\r\nSum: 1\r\n\r\n\
                  GET /d HTTP/1.0\r\n\r\n";
    let service = format!(
        "GET /a HTTP/1.1\r\nHost: a\r\n{ADDED}\r\n\
         POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n{ADDED}\r\nGET /hidden HTTP/1.1\r\nX: y\r\n\r\n\
         PUT /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n{ADDED}\r\n\
         5;x=y\r\nGET /\r\n1a\r\n0123456789\r\n\r\n0123456789xy\r\n0\r\nSum: 1\r\n\r\n\
         GET /d HTTP/1.0\r\n{ADDED}\r\n"
    );
    (client.to_owned(), service)
}

#[test]
fn each_request_of_a_connection_gets_the_lines_and_loses_forged_ones() {
    let (client, service) = three();
    assert_eq!(whole(&client).unwrap(), service);
}

#[test]
fn where_the_stream_is_cut_makes_no_difference() {
    let (client, service) = three();
    let client = client.as_bytes();
    for first in 0..client.len() {
        for second in first..client.len() {
            let pieces = [&client[..first], &client[first..second], &client[second..]];
            assert_eq!(sent(&pieces).unwrap(), service, "cut at {first} and {second}");
        }
    }
    let bytes: Vec<&[u8]> = client.chunks(1).collect();
    assert_eq!(sent(&bytes).unwrap(), service, "byte by byte");
}

#[test]
fn a_head_is_held_back_until_it_is_complete() {
    let mut requests = requests();
    assert_eq!(requests.take(b"GET / HTTP/1.1\r\nX-Portolan-"), Ok(Vec::new()));
    assert_eq!(requests.take(b"Peer: Iforged\r\n"), Ok(Vec::new()));
    let head = requests.take(b"\r\n").unwrap();
    assert_eq!(
        String::from_utf8(head).unwrap(),
        format!("GET / HTTP/1.1\r\n{ADDED}\r\n")
    );
}

#[test]
fn a_forged_name_is_removed_however_it_is_spelt() {
    for name in [
        "x-portolan-peer",
        "X_PORTOLAN_PEER",
        "X-Portolan_Attribute-Role",
        "X-Portolan-",
    ] {
        let request = format!("GET / HTTP/1.1\r\n{name}: forged\r\nHost: a\r\n\r\n");
        assert_eq!(
            whole(&request).unwrap(),
            format!("GET / HTTP/1.1\r\nHost: a\r\n{ADDED}\r\n"),
            "{name}"
        );
    }
}

#[test]
fn a_client_cannot_have_the_lines_removed_on_the_way() {
    let request =
        "GET / HTTP/1.1\r\nConnection: X-Portolan-Peer, keep-alive , x_portolan_attribute_role\r\n\r\n";
    assert_eq!(
        whole(request).unwrap(),
        format!("GET / HTTP/1.1\r\nConnection: keep-alive\r\n{ADDED}\r\n")
    );
}

#[test]
fn no_request_turns_the_connection_into_something_else() {
    let request = "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(whole(request).unwrap(), format!("GET / HTTP/1.1\r\n{ADDED}\r\n"));
}

#[test]
fn a_client_that_sends_line_feeds_alone_is_refused_with_the_first_and_does_not_wait() {
    let mut requests = requests();
    assert!(
        requests
            .take(b"GET / HTTP/1.1\n")
            .unwrap_err()
            .contains("line feed")
    );
    assert!(whole("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\n").is_err());
}

#[test]
fn bodies_go_on_uncopied_while_they_last() {
    let mut requests = requests();
    assert!(!requests.skip(10), "a head is not skipped");
    requests
        .take(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n")
        .unwrap();
    assert!(requests.skip(9));
    assert!(!requests.skip(2), "the next head begins in these");
    assert_eq!(requests.take(b"xG"), Ok(b"x".to_vec()));
}

#[test]
fn what_could_hide_a_request_ends_the_connection() {
    for hostile in [
        // Two framings, or one that servers read in different ways.
        "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: \r\n\r\n",
        "POST / HTTP/1.1\r\nContent_Length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer_Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length : 5\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        // Lines that end or go on in ways of their own.
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\nX-Portolan-Peer: Iforged\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\rX-Portolan-Peer: Iforged\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\r\n X-Portolan-Peer: Iforged\r\n\r\n",
        "GET / HTTP/1.1\r\n X-Portolan-Peer: Iforged\r\n\r\n",
        "GET / HTTP/1.1\r\nA\r\n\r\n",
        "\rGET / HTTP/1.1\r\n\r\n",
        // Chunks.
        "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n0123456789",
        "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\n",
        "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\n01234\r\n",
        "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\nC: d\r\n\r\n",
        // Not requests, or requests after which nothing can be seen.
        "CONNECT a:443 HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/1.2\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "GET /\r\n\r\n",
        "\x16\x03\x01\x02\r\n\r\n",
        "\r\n\r\r\n\r\n",
    ] {
        let outcome = whole(hostile);
        assert!(outcome.is_err(), "{hostile:?} became {outcome:?}");
    }
}

#[test]
fn nothing_passes_after_a_refusal() {
    let mut requests = requests();
    requests.take(b"nonsense\r\n\r\n").unwrap_err();
    requests.take(b"GET / HTTP/1.1\r\n\r\n").unwrap_err();
    assert!(!requests.skip(1));
}

#[test]
fn what_is_held_back_is_bounded() {
    let mut requests = requests();
    requests.take(b"GET / HTTP/1.1\r\nA: ").unwrap();
    let refused = (0..MAX_HEAD / 1000 + 1).find_map(|_| requests.take(&[b'a'; 1000]).err());
    assert!(refused.is_some_and(|reason| reason.contains("65536")));

    let mut requests = self::requests();
    requests
        .take(b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;")
        .unwrap();
    assert!(requests.take(&[b'a'; 1000]).is_err());
}

#[test]
fn whatever_passes_is_read_the_same_way_again_wherever_it_was_cut() {
    // A generator without a seed from outside: the same bytes in each run.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (client, _) = three();
    for _ in 0..20_000 {
        let mut bytes = client.clone().into_bytes();
        for _ in 0..=next() % 3 {
            let at = next() as usize % bytes.len();
            match next() % 3 {
                0 => bytes[at] = next() as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"\r\n :0"[next() as usize % 5]),
            }
        }
        let mut whole = requests();
        let mut pieces = requests();
        let cut = next() as usize % bytes.len();
        let one = whole.take(&bytes);
        let two = pieces.take(&bytes[..cut]).and_then(|mut out| {
            pieces.take(&bytes[cut..]).map(|more| {
                out.extend(more);
                out
            })
        });
        // Where it is cut decides neither whether it is refused nor what passes.
        assert_eq!(
            one.is_ok(),
            two.is_ok(),
            "{:?} cut at {cut}",
            String::from_utf8_lossy(&bytes)
        );
        if let (Ok(one), Ok(two)) = (one, two) {
            assert_eq!(one, two);
            // Its own lines are reserved names too: it removes them, and adds them at the same place.
            assert_eq!(requests().take(&one), Ok(one));
        }
    }
}
