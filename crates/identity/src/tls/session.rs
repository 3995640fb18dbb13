//! One side of TLS over bytes that others keep: nothing is buffered in here, so a connection at rest holds its keys and no
//! more.

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus};
use rustls::{ClientConfig, Error, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName};

/// What encryption adds to a record: header, type and tag (RFC 8446 §5.2), and the records that one write may have.
const OVERHEAD: usize = 32;
const RECORD: usize = 16 * 1024;

/// The machine of TLS.
pub(super) enum Session {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What follows a step.
enum Next {
    /// Another step.
    Again,
    /// Something was read; another step, if there is more.
    Read,
    /// More bytes from the other side.
    More,
    /// The other side says that it sends no more.
    Ended,
}

/// What a step shall do once the machine would let it write.
enum Task<'d> {
    Read,
    Seal(&'d [u8]),
    Close,
}

impl Session {
    pub(super) fn client(config: ClientConfig, name: ServerName<'static>) -> Result<Self, Error> {
        UnbufferedClientConnection::new(Arc::new(config), name).map(Self::Client)
    }

    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        UnbufferedServerConnection::new(config).map(Self::Server)
    }

    pub(super) fn is_handshaking(&self) -> bool {
        match self {
            Self::Client(machine) => machine.is_handshaking(),
            Self::Server(machine) => machine.is_handshaking(),
        }
    }

    pub(super) fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        match self {
            Self::Client(machine) => machine.peer_certificates(),
            Self::Server(machine) => machine.peer_certificates(),
        }
    }

    pub(super) fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Client(machine) => machine.alpn_protocol(),
            Self::Server(machine) => machine.alpn_protocol(),
        }
    }

    /// Takes in what came until it needs more; how much of it was used up, and whether the other side sends no more.
    ///
    /// - `came`: ciphertext; what is not used up must come again, in front of what follows it.
    /// - `plain`: gets what was deciphered.
    /// - `out`: what must be sent is appended.
    ///
    /// # Errors
    /// When the other side breaks the rules; what it is told of that is appended to `out` all the same.
    pub(super) fn take_in(
        &mut self,
        came: &mut [u8],
        plain: &mut dyn FnMut(&[u8]),
        out: &mut Vec<u8>,
    ) -> Result<(usize, bool), Error> {
        let (mut used, mut has_ended) = (0, false);
        loop {
            let (discard, next) = self.step(came.get_mut(used..).unwrap_or_default(), Task::Read, plain, out);
            used += discard;
            match next {
                // A step only to hear that there is nothing is spared; what waits to be sent leaves with what is sealed next.
                Ok(Next::Read) if used == came.len() => return Ok((used, has_ended)),
                Ok(Next::Again | Next::Read) => {}
                Ok(Next::Ended) => has_ended = true,
                Ok(Next::More) => return Ok((used, has_ended)),
                Err(error) => {
                    self.last_words(came.get_mut(used..).unwrap_or_default(), out);
                    return Err(error);
                }
            }
        }
    }

    /// Appends `data` to `out`, enciphered.
    ///
    /// - `kept`: what came and was not used up; drained of what is now.
    ///
    /// # Errors
    /// When nothing more may be sent.
    pub(super) fn seal(
        &mut self,
        data: &[u8],
        kept: &mut Vec<u8>,
        plain: &mut dyn FnMut(&[u8]),
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.write(Task::Seal(data), kept, plain, out)
    }

    /// Appends the word that nothing more will be sent.
    ///
    /// # Errors
    /// When nothing more may be sent.
    pub(super) fn close(
        &mut self,
        kept: &mut Vec<u8>,
        plain: &mut dyn FnMut(&[u8]),
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.write(Task::Close, kept, plain, out)
    }

    fn write(
        &mut self,
        task: Task<'_>,
        kept: &mut Vec<u8>,
        plain: &mut dyn FnMut(&[u8]),
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        loop {
            let task = match &task {
                Task::Seal(data) => Task::Seal(data),
                Task::Read | Task::Close => Task::Close,
            };
            let before = out.len();
            let (discard, next) = self.step(kept, task, plain, out);
            kept.drain(..discard.min(kept.len()));
            match next? {
                Next::Again | Next::Read | Next::Ended => {}
                Next::More if out.len() > before => return Ok(()),
                Next::More => return Err(Error::HandshakeNotComplete),
            }
        }
    }

    /// What the other side is told before it is left: the alert, which waits in front of everything else. The machine must
    /// not be asked again afterwards: it would look at the same bytes once more.
    ///
    /// - `came`: what was not used up; the machine keeps places in it.
    fn last_words(&mut self, came: &mut [u8], out: &mut Vec<u8>) {
        let _nothing_more = self.step(came, Task::Read, &mut |_| {}, out);
    }

    fn step(
        &mut self,
        came: &mut [u8],
        task: Task<'_>,
        plain: &mut dyn FnMut(&[u8]),
        out: &mut Vec<u8>,
    ) -> (usize, Result<Next, Error>) {
        match self {
            Self::Client(machine) => step(machine.process_tls_records(came), task, plain, out),
            Self::Server(machine) => step(machine.process_tls_records(came), task, plain, out),
        }
    }
}

fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    task: Task<'_>,
    plain: &mut dyn FnMut(&[u8]),
    out: &mut Vec<u8>,
) -> (usize, Result<Next, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let next = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut outcome = Ok(Next::Read);
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        plain(record.payload);
                    }
                    Err(error) => {
                        outcome = Err(error);
                        break;
                    }
                }
            }
            outcome
        }
        Ok(ConnectionState::EncodeTlsData(mut words)) => append(out, 0, |room| match words.encode(room) {
            Ok(written) => Ok(written),
            Err(EncodeError::InsufficientSize(needed)) => Err(Some(needed)),
            Err(EncodeError::AlreadyEncoded) => Err(None),
        }),
        Ok(ConnectionState::TransmitTlsData(words)) => {
            // They wait in `out` for their turn.
            words.done();
            Ok(Next::Again)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Next::Ended),
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            let appended = match task {
                Task::Read => return (discard, Ok(Next::More)),
                Task::Seal(data) => {
                    let room = data.len() + (data.len() / RECORD + 1) * OVERHEAD;
                    append(out, room, |room| traffic.encrypt(data, room).map_err(needed))
                }
                Task::Close => append(out, 64, |room| traffic.queue_close_notify(room).map_err(needed)),
            };
            appended.map(|_| Next::More)
        }
        Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => Ok(Next::More),
        // Early data is never offered and never taken.
        Ok(_) => Err(Error::General("a state of TLS that cannot be".into())),
    };
    (discard, next)
}

fn needed(error: EncryptError) -> Option<InsufficientSizeError> {
    match error {
        EncryptError::InsufficientSize(needed) => Some(needed),
        EncryptError::EncryptExhausted => None,
    }
}

/// Lets `write` append, with as much room as it says it needs.
fn append(
    out: &mut Vec<u8>,
    room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<InsufficientSizeError>>,
) -> Result<Next, Error> {
    let at = out.len();
    let mut room = room;
    loop {
        out.resize(at + room, 0);
        match write(out.get_mut(at..).unwrap_or_default()) {
            Ok(written) => {
                out.truncate(at + written);
                return Ok(Next::Again);
            }
            Err(Some(InsufficientSizeError { required_size })) if required_size > room => room = required_size,
            Err(_) => {
                out.truncate(at);
                return Err(Error::EncryptError);
            }
        }
    }
}
