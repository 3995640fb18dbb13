//! An open loop: each connection is a thread that sends at planned times. A request that could not leave in time because
//! the one before it was late counts from its planned time, so that a stall is not forgotten.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::num::NonZeroU64;
use std::thread;
use std::time::{Duration, Instant};

use crate::tally::Tally;
use crate::{Load, Outcome};

/// Time for one answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time to begin with all threads ready.
const HEAD_START: Duration = Duration::from_millis(50);

/// Sends `rate` GETs a second, evenly spaced over all connections.
pub(crate) fn run(load: &Load, rate: u32) -> Outcome<Tally> {
    let began = Instant::now() + HEAD_START;
    let every = Duration::from_secs_f64(f64::from(load.connections) / f64::from(rate));
    let threads: Vec<_> = (0..load.connections)
        .map(|number| {
            let (load, first) = (load.clone(), began + every / load.connections * number);
            thread::spawn(move || connection(&load, first, every, began + Duration::from_secs_f64(load.seconds)))
        })
        .collect();
    let mut tally = Tally::default();
    for thread in threads {
        tally.merge(thread.join().map_err(|_| "a connection's thread panicked")??);
    }
    Ok(tally.over(began))
}

fn connection(load: &Load, first: Instant, every: Duration, end: Instant) -> io::Result<Tally> {
    // Without this the kernel may wake us 50 µs late.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", load.host);
    let mut tally = Tally::default();
    let mut stream = connect(load.port)?;
    let mut planned = first;
    while planned < end {
        thread::sleep(planned.saturating_duration_since(Instant::now()));
        match stream.write_all(request.as_bytes()).and_then(|()| answer(&mut stream)) {
            Ok(()) => tally.answered(planned.elapsed()),
            Err(error) => {
                tally.failed(error);
                stream = connect(load.port)?;
            }
        }
        planned += every;
    }
    Ok(tally)
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Reads one answer of status 200 to the end of its body, which must have a length.
fn answer(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0_u8; 16 * 1024];
    let mut filled = 0;
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    loop {
        let room =
            buffer.get_mut(filled..).filter(|room| !room.is_empty()).ok_or_else(|| wrong("an answer over 16 KiB"))?;
        let read = stream.read(room)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        let got = buffer.get(..filled).unwrap_or_default();
        let Some(head) = got.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(got.get(..head).unwrap_or_default()).to_ascii_lowercase();
        if !text.starts_with("http/1.1 200") {
            return Err(wrong(text.lines().next().unwrap_or_default()));
        }
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let length = length.ok_or_else(|| wrong("an answer without a length"))?;
        if filled >= head + 4 + length {
            return Ok(());
        }
    }
}
