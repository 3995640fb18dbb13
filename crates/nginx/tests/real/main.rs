//! A real Nginx with a rendered configuration, in front of stand-ins of masters: what clients really get.
#![expect(clippy::expect_used, reason = "a failed test panics")]

mod control;
mod edge;
mod files;
mod grpc;
mod http;
mod introduced;
mod master;
mod masters;
mod stream;
