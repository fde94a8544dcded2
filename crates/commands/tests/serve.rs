//! The server `serve`, through the program itself and over real connections.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_switchable-quant");
const CONTEXT: &str = "É. Moor was born in Riga. She plays the violin.";
const QUESTION: &str = "Where was É. Moor born?";
/// Words of a text that is read for a while, below the limit of tokens.
const LONG: usize = 600;

/// An artefact of the built-in model with two plans, a front and a cascade.
static ARTEFACT: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a folder");
    let target = dir.path().join("artefact");
    let mut command = Command::new(PROGRAM);
    command.args(["dynamic-inference", "--limit", "40", "--bits", "2,4", "--untimed", "--quiet"]);
    command.arg("--pack").arg(&target).arg("--out").arg(dir.path().join("out")).stdin(Stdio::null());
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (dir, target)
});

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(flags: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--address", "127.0.0.1:0", "--model"]).arg(&ARTEFACT.1).args(flags);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("http://").and_then(|address| address.parse().ok());
        Self { child, address: address.unwrap_or_else(|| panic!("an address: {line:?}")) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it takes connections");
        stream.set_read_timeout(Some(Duration::from_mins(2))).expect("a time");
        stream
    }

    fn get(&self, path: &str) -> Said {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"), b"").expect("an answer")
    }

    fn post(&self, path: &str, body: &Value) -> Said {
        self.post_bytes(path, body.to_string().as_bytes())
    }

    fn post_bytes(&self, path: &str, body: &[u8]) -> Said {
        self.send(&head(path, body.len()), body).expect("an answer")
    }

    fn send(&self, head: &str, body: &[u8]) -> io::Result<Said> {
        let mut stream = self.connect();
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        Said::read(&stream)
    }

    fn counts(&self) -> Value {
        self.get("/health").json()["requests"].clone()
    }

    fn count(&self, name: &str) -> u64 {
        self.counts()[name].as_u64().unwrap_or_else(|| panic!("no count of {name}"))
    }

    /// Waits until a count is as it should be.
    fn wait_for(&self, name: &str, is_right: impl Fn(u64) -> bool) {
        let start = Instant::now();
        while !is_right(self.count(name)) {
            assert!(start.elapsed() < Duration::from_mins(1), "{name}: {}", self.counts());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn head(path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}

fn question(choice: &Value) -> Value {
    json!({ "question": QUESTION, "context": CONTEXT, "choice": choice })
}

/// A request that takes a while.
fn long_question() -> Value {
    json!({ "question": QUESTION, "context": "The town lies in the north. ".repeat(LONG / 6) })
}

#[derive(Debug)]
struct Said {
    status: u16,
    head: String,
    body: String,
}

impl Said {
    fn read(stream: &TcpStream) -> io::Result<Self> {
        let mut reader = BufReader::new(stream);
        let (mut head, mut line) = (String::new(), String::new());
        while reader.read_line(&mut line)? > 2 {
            head += &line.to_lowercase();
            line.clear();
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status: {head:?}")))?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        Ok(Self { status, head, body: String::from_utf8(body).expect("a text") })
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// Name, field and message of what is wrong.
    #[track_caller]
    fn problem(&self) -> [String; 3] {
        let error = &self.json()["error"];
        ["name", "field", "message"].map(|part| error[part].as_str().unwrap_or_default().to_owned())
    }
}

#[test]
fn the_page_is_all_there_and_loads_nothing_from_elsewhere() {
    let server = Server::start(&[]);
    let page = server.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let parts = ["page.css", "page.js", "icon.svg"].map(|name| (name, server.get(&format!("/{name}"))));
    for (name, part) in &parts {
        assert!(page.body.contains(&format!("\"{name}\"")), "{name}");
        assert_eq!((part.status, part.header("x-content-type-options")), (200, Some("nosniff")), "{name}");
    }
    for text in parts.iter().map(|(_, part)| &part.body).chain([&page.body]) {
        let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains("://") && !elsewhere.contains("style="), "{text}");
    }
    let health = server.get("/health").json();
    assert_eq!((&health["status"], &health["model"]), (&json!("ok"), &json!("artefact")));
}

#[test]
fn every_choice_is_answered_by_a_plan_that_is_listed() {
    let server = Server::start(&[]);
    let plans = server.get("/plans").json();
    assert_eq!((&plans["names"], plans["front"].as_array().map(Vec::len)), (&json!(["bits-2", "bits-4"]), Some(2)));
    let entry = |id: &Value| {
        let entries = plans["plans"].as_array().expect("plans");
        entries.iter().find(|entry| entry["id"] == *id).unwrap_or_else(|| panic!("{id} in {plans}"))
    };
    let smallest = &entry(&json!("bits-2"))["bytes"];
    for (choice, expected) in [
        (json!("default"), plans["default"].clone()),
        (json!({ "plan": "bits-4" }), json!("bits-4")),
        (json!({ "bytes": smallest }), json!("bits-2")),
        (json!({ "accuracy": 0.0 }), json!("bits-2")),
        (json!("confidence"), Value::Null),
    ] {
        let said = server.post("/answer", &question(&choice));
        let answer = said.json();
        assert_eq!(said.status, 200, "{choice}: {answer}");
        let place = |name: &str| answer[name].as_u64().expect("a place") as usize;
        let marked: String = CONTEXT.chars().take(place("end")).skip(place("start")).collect();
        assert_eq!(answer["answer"], json!(marked), "{choice}");
        let run = entry(&answer["plan"]["id"]);
        assert_eq!((&run["bytes"], &run["average_bits"]), (&answer["plan"]["bytes"], &answer["plan"]["average_bits"]));
        assert_eq!(run["weights"].as_array().map(Vec::len), plans["blocks"].as_array().map(Vec::len));
        assert!(answer["milliseconds"]["computed"].as_f64() > Some(0.0), "{answer}");
        assert_eq!(answer["confidence"].is_number(), choice == "confidence", "{answer}");
        match expected {
            Value::Null => {
                let stages = plans["cascade"]["plans"].as_array().expect("a cascade");
                let escalations = answer["escalations"].as_array().expect("a list");
                assert_eq!(answer["plan"]["id"], stages[escalations.len()], "{answer}");
                assert!(escalations.iter().all(|it| it["confidence"].as_f64() < it["threshold"].as_f64()), "{answer}");
            }
            id => assert_eq!((&answer["plan"]["id"], &answer["escalations"]), (&id, &json!([])), "{choice}"),
        }
    }
}

#[test]
fn texts_follow_their_seed_and_their_limits() {
    let server = Server::start(&["--max-new-tokens", "12"]);
    let text = |seed: u64, tokens: u64| {
        let body = json!({ "prompt": "Ada Moor", "max_new_tokens": tokens, "temperature": 3.0, "seed": seed });
        let said = server.post("/generate", &body);
        assert_eq!(said.status, 200, "{said:?}");
        let said = said.json();
        assert!(said["tokens"].as_u64() <= Some(tokens), "{said}");
        said["text"].as_str().expect("a text").to_owned()
    };
    assert_eq!(text(1, 12), text(1, 12));
    assert_ne!(text(1, 12), text(2, 12));
    assert!(text(1, 12).starts_with(&text(1, 3)));
    let said = server.post("/generate", &json!({ "prompt": "Ada" }));
    assert!(said.status == 200 && said.json()["tokens"].as_u64() <= Some(12), "{said:?}");
}

#[test]
fn what_is_wrong_with_a_request_is_said_by_name_and_field() {
    let server = Server::start(&["--max-tokens", "80", "--max-new-tokens", "12"]);
    let long = json!({ "question": QUESTION, "context": CONTEXT.repeat(20) });
    let cases = [
        ("/answer", question(&json!({ "plan": "bits-5" })), 422, "bad_field", "choice.plan", "bits-2, bits-4"),
        ("/answer", question(&json!({ "plan": 4 })), 422, "bad_field", "choice.plan", "expected a string"),
        ("/answer", question(&json!({ "bytes": 1 })), 422, "bad_field", "choice.bytes", "expected at least"),
        ("/answer", question(&json!({ "bytes": -1 })), 422, "bad_field", "choice.bytes", "-1"),
        ("/answer", question(&json!({ "accuracy": 101.0 })), 422, "bad_field", "choice.accuracy", "percent"),
        ("/answer", question(&json!("best")), 422, "bad_field", "choice", "`best`"),
        ("/answer", json!({ "question": QUESTION }), 422, "bad_field", "context", "missing"),
        ("/answer", json!({ "question": " ", "context": "a" }), 422, "bad_field", "question", "empty"),
        ("/answer", json!({ "question": 7, "context": "a" }), 422, "bad_field", "question", "expected a string"),
        ("/answer", json!({ "question": "a", "text": "a" }), 422, "bad_field", "text", "unknown field"),
        ("/answer", json!([QUESTION, CONTEXT]), 422, "bad_field", "body", "expected an object"),
        ("/answer", long, 422, "bad_field", "context", "at most 80 tokens"),
        ("/generate", json!({ "prompt": "" }), 422, "bad_field", "prompt", "empty"),
        ("/generate", json!({ "prompt": "a", "max_new_tokens": 13 }), 422, "bad_field", "max_new_tokens", "at most 12"),
        ("/generate", json!({ "prompt": "a", "temperature": 0.0 }), 422, "bad_field", "temperature", "above 0"),
        ("/generate", json!({ "prompt": "a", "top_p": 2.0 }), 422, "bad_field", "top_p", "at most 1"),
        ("/generate", json!({ "prompt": "a", "choice": "confidence" }), 422, "bad_field", "choice", "cascade"),
        ("/answers", json!({}), 404, "no_such_path", "", "/answers"),
        ("/plans", json!({}), 405, "method_not_allowed", "", "GET"),
    ];
    for (path, body, status, name, field, message) in cases {
        let said = server.post(path, &body);
        let problem = said.problem();
        assert_eq!((said.status, problem[0].as_str()), (status, name), "{path} {body}: {said:?}");
        assert!(field.is_empty() || problem[1] == field, "{path} {body}: {problem:?}");
        assert!(problem[2].contains(message), "{path} {body}: {problem:?}");
    }
    let unicode = b"{\"question\": \"\xff\", \"context\": \"a\"}";
    for broken in [
        &b""[..],
        b"{",
        b"{\"question\": \"a\"} x",
        b"\xff\xfe",
        b"{\"choice\": {\"plan\": \"a",
        b"{\"choice\": }",
        unicode,
    ] {
        let said = server.post_bytes("/answer", broken);
        assert_eq!((said.status, said.problem()[0].as_str()), (400, "malformed_json"), "{said:?}");
    }
    let plain = head("/answer", 2).replace("application/json", "text/plain");
    let said = server.send(&plain, b"{}").expect("an answer");
    assert_eq!((said.status, said.problem()[0].as_str()), (415, "media_type"));
    let hosted = |host: &str| server.send(&format!("GET /plans HTTP/1.1\r\nhost: {host}\r\n\r\n"), b"");
    for host in ["LOCALHOST:8080", "127.0.0.1", "127.0.0.1:80", "[::1]:8080", "[::1]", "10.0.0.7:1"] {
        assert_eq!(hosted(host).expect("an answer").status, 200, "{host}");
    }
    for host in ["pages.example", "pages.example:8080", "127.0.0.1.example", "localhost.example:80", "localhost:x"] {
        let said = hosted(host).expect("an answer");
        assert_eq!((said.status, said.problem()[0].as_str()), (421, "other_host"), "{host}");
    }
    let said = server.get("/answer");
    assert_eq!((said.status, said.header("allow")), (405, Some("post")), "{said:?}");
    assert_eq!(server.post("/answer", &question(&json!("default"))).status, 200);
}

#[test]
fn json_whose_shape_or_numbers_are_wrong_is_no_broken_json() {
    let server = Server::start(&[]);
    let answer = |choice: &str| format!(r#"{{"question": "a", "context": "b", "choice": {choice}}}"#);
    let generate = |field: &str, value: &str| format!(r#"{{"prompt": "Ada", "{field}": {value}}}"#);
    let cases = [
        ("/answer", answer("{}"), "choice", "map"),
        ("/answer", answer("null"), "choice", "null"),
        ("/answer", answer("[]"), "choice", "sequence"),
        ("/answer", answer("1"), "choice", "integer `1`"),
        ("/answer", answer(r#"{"plan": "x", "bytes": 1}"#), "choice", "single key"),
        ("/answer", answer(r#"{"accuracy": 1e999}"#), "choice.accuracy", "out of range"),
        ("/answer", answer(r#"{"bytes": 1e999}"#), "choice.bytes", "out of range"),
        ("/generate", generate("temperature", "1e39"), "temperature", "1e39"),
        ("/generate", generate("temperature", "1e999"), "temperature", "out of range"),
        ("/generate", generate("temperature", "1e-60"), "temperature", "above 0"),
        ("/generate", generate("top_p", "-1e39"), "top_p", "-1e39"),
        ("/generate", generate("repetition_penalty", "1e39"), "repetition_penalty", "1e39"),
        ("/generate", generate("max_new_tokens", "1e999"), "max_new_tokens", "out of range"),
        ("/generate", generate("choice", "[]"), "choice", "sequence"),
        ("/generate", "1e999".to_owned(), "body", "out of range"),
    ];
    for (path, body, field, message) in cases {
        let said = server.post_bytes(path, body.as_bytes());
        let problem = said.problem();
        assert_eq!(
            (said.status, problem[0].as_str(), problem[1].as_str()),
            (422, "bad_field", field),
            "{body}: {said:?}"
        );
        assert!(problem[2].contains(message), "{body}: {problem:?}");
    }
}

#[test]
fn what_a_model_refuses_of_a_text_is_said_of_its_field() {
    let server = Server::start(&[]);
    let long = "Ada ".repeat(1500);
    let cases = [
        ("/answer", json!({ "question": long, "context": CONTEXT }), "question", "tokens, expected at most"),
        ("/generate", json!({ "prompt": long }), "prompt", "the positions of the model"),
        ("/generate", json!({ "prompt": CONTEXT, "repetition_penalty": 1e-44 }), "repetition_penalty", "finite"),
    ];
    for (path, body, field, message) in cases {
        let said = server.post(path, &body);
        let problem = said.problem();
        assert_eq!((said.status, problem[0].as_str(), problem[1].as_str()), (422, "bad_field", field), "{said:?}");
        assert!(problem[2].contains(message), "{problem:?}");
    }
    // A text of one token, which no other can rival.
    let said = server.post("/answer", &json!({ "question": "\u{200b}", "context": "x" }));
    assert!(said.status == 200 && said.json()["probability"].as_f64() <= Some(1.0), "{said:?}");
}

#[test]
fn an_artefact_without_its_manifest_is_not_served() {
    let dir = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(&ARTEFACT.1).expect("it is there") {
        let path = entry.expect("it is there").path();
        let name = path.file_name().expect("a name");
        if path.is_file() && name != "artefact.json" {
            std::fs::copy(&path, dir.path().join(name)).expect("it is copied");
        }
    }
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--address", "127.0.0.1:0", "--model"]).arg(dir.path());
    let output = command.env_remove("RUST_BACKTRACE").stdin(Stdio::null()).output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("artefact.json is missing"), "{error}");
}

#[test]
fn a_body_of_a_hundred_megabytes_is_refused_and_the_next_request_answered() {
    const LENGTH: usize = 100 << 20;
    let server = Server::start(&[]);
    let mut stream = server.connect();
    stream.write_all(head("/answer", LENGTH).as_bytes()).expect("it is taken");
    let piece = vec![b' '; 1 << 20];
    for _ in 0..LENGTH / piece.len() {
        stream.write_all(&piece).expect("it is read to its end");
    }
    let said = Said::read(&stream).expect("an answer");
    assert_eq!((said.status, said.problem()[0].as_str()), (413, "body_too_large"));
    // A client that asks first does not send it.
    let asking = head("/answer", LENGTH).replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n");
    let said = server.send(&asking, b"").expect("an answer");
    assert_eq!((said.status, said.problem()[0].as_str()), (413, "body_too_large"));
    assert_eq!(server.post("/answer", &question(&json!("default"))).status, 200);
}

#[test]
fn a_request_whose_client_has_hung_up_is_not_computed() {
    let server = Server::start(&["--workers", "1", "--queue", "8"]);
    let long = long_question().to_string();
    let start = |body: &str| {
        let mut stream = server.connect();
        stream.write_all(head("/answer", body.len()).as_bytes()).expect("it is taken");
        stream.write_all(body.as_bytes()).expect("it is taken");
        stream
    };
    // One that is computed, behind it five that wait, and go.
    let first = start(&long);
    server.wait_for("computing", |computing| computing == 1);
    let gone: Vec<TcpStream> = (0..5).map(|_| start(&long)).collect();
    server.wait_for("waiting", |waiting| waiting == 5);
    for stream in gone {
        stream.shutdown(Shutdown::Both).expect("it hangs up");
    }
    // Clients that break off within a head and within a body.
    drop(server.connect().write_all(b"POST /answer HT"));
    drop(server.connect().write_all(format!("{}{{", head("/answer", 900)).as_bytes()));
    assert_eq!(Said::read(&first).expect("an answer").status, 200);
    assert_eq!(server.post("/answer", &question(&json!("default"))).status, 200);
    server.wait_for("abandoned", |abandoned| abandoned == 5);
    assert_eq!((server.count("answered"), server.count("waiting")), (2, 0));
}

#[test]
fn an_overload_is_refused_at_once_and_nothing_is_lost() {
    let server = Server::start(&["--workers", "1", "--queue", "2"]);
    let body = long_question();
    let asked: Vec<(Said, Duration)> = std::thread::scope(|scope| {
        let ask = || {
            let start = Instant::now();
            (server.post("/answer", &body), start.elapsed())
        };
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    let of = |status: u16| asked.iter().filter(move |(said, _)| said.status == status);
    let (answered, refused) = (of(200).count() as u64, of(503).count() as u64);
    assert_eq!(answered + refused, 16);
    assert!(answered >= 2 && refused >= 8, "{answered} and {refused}");
    assert_eq!((server.count("answered"), server.count("overloaded")), (answered, refused));
    for (said, _) in of(503) {
        assert_eq!(said.problem()[0], "overloaded");
        assert!(said.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok_and(|it| it >= 1)));
    }
    let longest = of(503).map(|(_, time)| *time).max().expect("a time");
    let shortest = of(200).map(|(_, time)| *time).min().expect("a time");
    assert!(longest < shortest, "refused after {longest:?}, answered after {shortest:?}");
}

#[test]
fn more_connections_than_there_may_be_are_refused() {
    let server = Server::start(&["--connections", "2"]);
    let kept = [server.connect(), server.connect()];
    std::thread::sleep(Duration::from_millis(200));
    let said = Said::read(&server.connect()).expect("an answer");
    assert_eq!((said.status, said.problem()[0].as_str()), (503, "too_many_connections"));
    drop(kept);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(server.get("/health").status, 200);
}

#[cfg(unix)]
#[test]
fn clients_that_do_not_read_their_answers_lose_their_connections() {
    const PLANS: &str = "GET /plans HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut server = Server::start(&["--connections", "2"]);
    let stall = || {
        let mut stream = server.connect();
        stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a time");
        // Where the server cannot write it no longer reads.
        _ = stream.write_all(PLANS.repeat(20_000).as_bytes());
        stream
    };
    let stalled = [stall(), stall()];
    let said = Said::read(&server.connect()).expect("an answer");
    assert_eq!((said.status, said.problem()[0].as_str()), (503, "too_many_connections"));
    let is_answered = || server.send(PLANS, b"").is_ok_and(|said| said.status == 200);
    let start = Instant::now();
    while !is_answered() {
        assert!(start.elapsed() < Duration::from_secs(40), "their connections are kept");
        std::thread::sleep(Duration::from_millis(200));
    }
    drop(stalled);
    std::thread::sleep(Duration::from_secs(1));

    // Nor does a server that is stopped wait for them as long as for those who do.
    let stalled = [stall(), stall()];
    let id = server.child.id().to_string();
    let start = Instant::now();
    assert!(Command::new("kill").args(["-TERM", &id]).status().expect("it runs").success());
    assert_eq!(server.child.wait().expect("it ends").code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    drop(stalled);
}

#[cfg(unix)]
#[test]
fn a_server_that_is_stopped_answers_what_it_has_taken() {
    let mut server = Server::start(&["--workers", "1"]);
    let body = long_question().to_string();
    let ask = || {
        let mut stream = server.connect();
        stream.write_all(format!("{}{body}", head("/answer", body.len())).as_bytes()).expect("it is taken");
        stream
    };
    let asked = [ask(), ask()];
    server.wait_for("waiting", |waiting| waiting == 1);
    let id = server.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().expect("it runs").success());
    for stream in &asked {
        assert_eq!(Said::read(stream).expect("an answer").status, 200);
    }
    assert_eq!(server.child.wait().expect("it ends").code(), Some(0));
    assert!(TcpStream::connect(server.address).is_err());
}

#[test]
fn an_address_that_is_taken_is_named() {
    let server = Server::start(&[]);
    let address = server.address.to_string();
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--address", &address]).env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    let output = command.output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&format!("`--address {address}`")), "{error}");
}
