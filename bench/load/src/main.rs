//! The two ends of a benchmark, and what stands between them where no packaged program does: upstreams, load
//! generators, a plain TCP copy, and a mesh of announced instances. `bench/run.py` starts them; see bench/README.md.

mod announce;
mod copy;
mod frames;
mod rate;
mod stream;
mod tally;
mod token;
mod upstream;
mod websocket;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// What can go wrong here ends the program; the harness shows the message.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Parser)]
#[command(name = "bench-load", about = "The two ends of a benchmark; started by bench/run.py")]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answers: uploads and WebSocket echo over HTTP/1.1 on one port, gRPC echo over cleartext HTTP/2 on another
    Upstream {
        #[arg(long)]
        http: u16,
        #[arg(long)]
        grpc: u16,
    },
    /// Copies bytes both ways and looks at none
    Copy {
        #[arg(long)]
        listen: u16,
        #[arg(long)]
        upstream: u16,
    },
    /// GETs at planned times, however slow the answers are
    Rate {
        #[command(flatten)]
        load: Load,
        /// Requests a second over all connections
        #[arg(long)]
        rate: u32,
    },
    /// gRPC calls that stay open: message, echo, message, …
    Stream {
        #[command(flatten)]
        load: Load,
        /// Calls at once on a connection
        #[arg(long)]
        streams: u32,
        /// Bytes of a message
        #[arg(long)]
        size: usize,
    },
    /// WebSocket: frame, echo, frame, …
    Websocket {
        #[command(flatten)]
        load: Load,
        /// Bytes of a frame
        #[arg(long)]
        size: usize,
    },
    /// Asks a master for a join token and prints it
    Token {
        /// The admin socket of the master
        #[arg(long)]
        admin: PathBuf,
    },
    /// Announces services to a master, as their sidecars would, until it is ended
    Announce(announce::Announced),
}

/// What all generators are told.
#[derive(Args, Clone)]
pub(crate) struct Load {
    /// On 127.0.0.1
    #[arg(long)]
    pub(crate) port: u16,
    /// What `Host` or `:authority` says
    #[arg(long, default_value = "bench")]
    pub(crate) host: String,
    #[arg(long)]
    pub(crate) connections: u32,
    #[arg(long)]
    pub(crate) seconds: f64,
}

fn main() -> ExitCode {
    match run(Line::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Outcome<()> {
    // The open-loop generator has threads of its own: a runtime's timers are too coarse for planned times.
    if let Command::Rate { load, rate } = &command {
        return rate::run(load, *rate).map(|tally| tally.print());
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        match command {
            Command::Upstream { http, grpc } => upstream::run(http, grpc).await,
            Command::Copy { listen, upstream } => copy::run(listen, upstream).await,
            Command::Rate { .. } => Ok(()),
            Command::Stream { load, streams, size } => {
                stream::run(&load, streams, size).await.map(|tally| tally.print())
            }
            Command::Websocket { load, size } => websocket::run(&load, size).await.map(|tally| tally.print()),
            Command::Token { admin } => token::run(&admin).await,
            Command::Announce(announced) => announce::run(announced).await,
        }
    })
}
