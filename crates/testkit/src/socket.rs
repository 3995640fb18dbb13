//! WebSocket clients.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// A connected WebSocket.
#[derive(Debug)]
pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    /// Connects to `ws://…`.
    ///
    /// # Errors
    /// A sentence: refused, or no upgrade.
    pub async fn connect(url: &str) -> Result<Self, String> {
        connect_async(url).await.map(|(stream, _)| Self(stream)).map_err(|error| error.to_string())
    }

    /// Sends a text.
    ///
    /// # Errors
    /// A sentence, when the connection is gone.
    pub async fn send(&mut self, text: &str) -> Result<(), String> {
        self.0.send(Message::text(text)).await.map_err(|error| error.to_string())
    }

    /// Waits for its end, passing over what still comes: the status of the close that the other side said; `None`: it
    /// ended without one.
    pub async fn closed(&mut self) -> Option<u16> {
        loop {
            match self.0.next().await? {
                Ok(Message::Close(frame)) => return frame.map(|frame| frame.code.into()),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// The next text; pings and pongs are passed over.
    ///
    /// # Errors
    /// A sentence, when the connection ended.
    pub async fn receive(&mut self) -> Result<String, String> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
                Some(Ok(Message::Close(_))) | None => return Err("closed".into()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.to_string()),
            }
        }
    }
}
