//! `synego up`: the assembly of everything that runs on this machine, and what a person sees of it.
//!
//! [`assembly`] builds master, [`instances`] and [`gateway`], which [`edge`] runs; [`console`] shows them ([`board`], [`terminal`]) through the
//! same admin API that every other command uses; [`detach`] is the same in the background; [`joined`] is the admin API of
//! a machine whose masters are elsewhere.

pub(crate) mod assembly;
mod board;
mod console;
pub(crate) mod detach;
mod edge;
mod ending;
pub(crate) mod gateway;
pub(crate) mod handover;
mod identity;
mod instances;
mod joined;
mod lock;
mod order;
mod pen;
mod ready;
mod terminal;
mod watch;

pub(crate) use instances::DRAIN;
