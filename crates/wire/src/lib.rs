//! The only door between bytes and values: generated protobuf, and checked conversion to and from the model.
//!
//! [`pb`] is what travels, [`convert`] makes values of it and of values what travels, [`status`] carries a failure with
//! its reason in a gRPC status.
//!
//! **Invariants.** A value that came through [`convert`] keeps every documented range; what does not is refused with all
//! mistakes at once. Nothing here does I/O, and no input makes it panic.

pub mod convert;
pub mod status;

pub mod pb {
    //! Generated from `proto/synego/v1`; `make gen` writes it anew.
    #![expect(unused_qualifications, clippy::allow_attributes, reason = "generated")]
    include!("gen/synego.v1.rs");
}
