//! A web server of one scenario, over plain HTTP or, with `stunnel` in front, over TLS; and the one of Python.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::project::free_address;
use crate::{Service, wait};

/// Serves these files, and 404 for everything else.
pub fn files(files: HashMap<String, Vec<u8>>) -> Service {
    Service::start(move |mut stream| {
        let path = request(&mut stream)?;
        let (status, body): (&str, &[u8]) = match files.get(&path) {
            Some(body) => ("200 OK", body),
            None => ("404 Not Found", b"tcp-outlet: { to: 1 }\n"),
        };
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        )?;
        stream.write_all(body)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let _ = stream.read(&mut [0]);
        Ok(())
    })
}

/// The path of a request without its query, read to the end of its head.
fn request(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16 * 1024 {
        if stream.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.split_ascii_whitespace().nth(1).unwrap_or_default();
    Ok(target.split('?').next().unwrap_or_default().to_owned())
}

/// What [`Http`] runs: Python's own HTTP server, which keeps connections alive and reads and writes chunked bodies.
const HTTP: &str = r#"
import http.server, json

PATTERN = bytes(range(251)) * 1000

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def pieces(self, count):
        offset = 0
        while offset < count:
            start = offset % 251
            piece = PATTERN[start:start + min(100000, count - offset)]
            offset += len(piece)
            yield piece

    def do_GET(self):
        what, _, count = self.path[1:].partition("/")
        if what == "headers":
            body = json.dumps([[name.lower(), value] for name, value in self.headers.items()]).encode()
            self.answer([body], len(body))
        elif what == "bytes":
            self.answer(self.pieces(int(count)), int(count))
        elif what == "chunks":
            self.answer(self.pieces(int(count)), None)
        else:
            self.send_error(404)

    def do_POST(self):
        self.answer([self.body()], None)

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while True:
            size = int(self.rfile.readline().split(b";")[0], 16)
            body += self.rfile.read(size)
            self.rfile.readline()
            if size == 0:
                return body

    def answer(self, pieces, length):
        self.send_response(200)
        if length is None:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        for piece in pieces:
            if length is None:
                piece = b"%x\r\n%s\r\n" % (len(piece), piece)
            self.wfile.write(piece)
        if length is None:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, *_):
        pass

server = Server(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

/// The HTTP/1.1 server of Python's library. `GET /headers` answers with the request's headers, a list in JSON of names in lower case
/// and values; `GET /bytes/N` and `/chunks/N` with so many bytes of the [pattern](crate::service::pattern), with a length or in
/// chunks; `POST` with the body, in chunks.
#[derive(Debug)]
pub struct Http {
    /// Where it listens.
    pub address: SocketAddr,
    process: Child,
}

impl Http {
    /// Starts one.
    ///
    /// # Panics
    /// When Python cannot be run.
    pub fn start() -> Self {
        let mut process = Command::new("python3")
            .args(["-c", HTTP])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 can be run");
        let mut line = String::new();
        let said = process.stdout.take().expect("its output is a pipe");
        BufReader::new(said)
            .read_line(&mut line)
            .expect("it says its port");
        let port: u16 = line
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("python3 said {line:?}"));
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            process,
        }
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A TLS server in front of a plain service: `stunnel` with a certificate for `localhost`.
#[derive(Debug)]
pub struct TlsFront {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its certificate, which is its own authority.
    pub certificate: PathBuf,
    process: Child,
    _folder: TempDir,
}

impl TlsFront {
    /// Starts one in front of `service`.
    ///
    /// # Panics
    /// When `openssl` or `stunnel` cannot be run, or it does not listen in time.
    pub fn start(service: SocketAddr) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("portolan-test-tls-")
            .tempdir()
            .expect("a temporary folder can be made");
        let (key, certificate) = (folder.path().join("key.pem"), folder.path().join("cert.pem"));
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .args(["-days", "2", "-subj", "/CN=localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-addext", "subjectAltName=DNS:localhost"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .expect("openssl can be run");
        assert!(
            made.status.success(),
            "openssl: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let address = free_address();
        let settings = folder.path().join("stunnel.conf");
        std::fs::write(
            &settings,
            format!(
                "foreground = yes\npid =\nsyslog = no\ndebug = err\n[front]\naccept = {address}\nconnect = {service}\ncert = {}\nkey = {}\n",
                certificate.display(),
                key.display()
            ),
        )
        .expect("a file can be written");
        let process = Command::new("stunnel")
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("stunnel can be run");
        let front = Self {
            address,
            certificate,
            process,
            _folder: folder,
        };
        let listens = wait::until(Duration::from_secs(10), || {
            TcpStream::connect(address).is_ok().then_some(())
        });
        assert!(listens.is_some(), "stunnel does not listen at {address}");
        front
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
