//! Quorate's own `history.ndjson`.

use super::{FormatError, Model, Recorded};

/// Reads it.
pub fn read(_text: &str, _model: Option<Model>) -> Result<Recorded, FormatError> {
    Err(FormatError::new(1, "ndjson histories are not read by this build"))
}
