//! What is wrong with a command line: all of it, told at once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

#[derive(Default)]
pub(super) struct Problems(pub(super) Vec<String>);

impl Problems {
    pub(super) fn add(&mut self, flag: &str, value: &str, problem: &str) {
        self.0.push(if value.is_empty() { format!("{flag}: {problem}") } else { format!("{flag} {value}: {problem}") });
    }

    pub(super) fn required<T, E: std::fmt::Display>(
        &mut self,
        value: Option<&str>,
        flag: &str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        match value.map(read) {
            Some(Ok(value)) => Some(value),
            Some(Err(error)) => {
                self.0.push(format!("{flag}: {error}"));
                None
            }
            None => {
                self.0.push(format!("{flag}: it is needed"));
                None
            }
        }
    }

    pub(super) fn folder(&mut self, what: &str, made: std::io::Result<PathBuf>) -> Option<PathBuf> {
        made.map_err(|error| self.0.push(format!("{what}: {error}"))).ok()
    }

    /// A bare port binds loopback, or every interface when `wide`.
    pub(super) fn bind(&mut self, flag: &str, text: &str, wide: bool) -> Option<SocketAddr> {
        let ip = if wide { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        match text.parse::<u16>() {
            Ok(port) => Some(SocketAddr::new(IpAddr::V4(ip), port)),
            Err(_) => self.required(Some(text), flag, |text| {
                text.parse::<SocketAddr>().map_err(|_| format!("`{text}` is no address: expected PORT or IP:PORT"))
            }),
        }
    }
}
