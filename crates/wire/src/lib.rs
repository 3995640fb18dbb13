//! The only door between bytes and values: generated protobuf, and checked conversion to and from the model.
//!
//! **Invariants.** A value that came through [`convert`] keeps every documented range; what does not is refused with all
//! mistakes at once. Nothing here does I/O.

pub mod pb {
    //! Generated from `proto/synego/v1`; `make gen` writes it anew.
    #![expect(missing_docs, unused_qualifications, clippy::allow_attributes, reason = "generated")]
    include!("gen/synego.v1.rs");
}
