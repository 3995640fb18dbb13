//! The program itself, without a sidecar: it says so, answers, logs each request with its ids, and ends well on TERM.

use std::error::Error;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Kills the process when a test fails before its end.
struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    fn start() -> Outcome<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_shop-inventory"))
            .env_clear()
            .env("PORT", "0")
            .env("SYNEGO_INSTANCE", "inventory-7")
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("no output")?;
        Ok(Self { child, lines: BufReader::new(output).lines() })
    }

    /// The next line whose message is `msg`.
    fn line(&mut self, msg: &str) -> Outcome<Value> {
        for line in &mut self.lines {
            let line: Value = serde_json::from_str(&line?)?;
            if line["msg"] == msg {
                return Ok(line);
            }
        }
        Err(format!("the output ended without `{msg}`").into())
    }

    fn signal(&self, name: &str) -> Outcome {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status()?;
        if sent.success() { Ok(()) } else { Err("no signal sent".into()) }
    }
}

fn get(address: &str, path: &str) -> Outcome<String> {
    let mut stream = TcpStream::connect(address)?;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nx-request-id: r-1\r\ntraceparent: {trace}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn the_program_runs_alone_and_ends_with_0_on_term() -> Outcome {
    let mut program = Program::start()?;
    let alone =
        program.line("no sidecar: the service runs alone, and calls by name go to SYNEGO_URL_<SERVICE> alone")?;
    assert_eq!(alone["level"], "warn");
    let ready = program.line("ready")?;
    let address = ready["address"].as_str().ok_or("no address")?.to_owned();
    let answer = get(&address, "/api/stock/tea-green")?;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains(r#""sku":"tea-green""#) && answer.contains(r#""instance":"inventory-7""#), "{answer}");
    let line = program.line("stock asked for")?;
    assert_eq!((&line["request_id"], &line["trace_id"]), (&"r-1".into(), &"4bf92f3577b34da6a3ce929d0e0e4736".into()));
    assert_eq!((&line["service"], &line["instance"]), (&"inventory".into(), &"inventory-7".into()));
    assert_eq!((&line["handler"], &line["sku"]), (&"GET /api/stock/{sku}".into(), &"tea-green".into()));
    assert!(get(&address, "/readyz")?.starts_with("HTTP/1.1 200 "));
    program.signal("TERM")?;
    program.line("drained")?;
    assert_eq!(program.child.wait()?.code(), Some(0));
    Ok(())
}
