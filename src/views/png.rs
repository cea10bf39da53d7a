//! Check of a PNG file: the decoder does not look at the checksum of the pixels.

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::jpeg_scans::Damage;
use crate::limits::DECODER_BYTES_MAX;

/// Length of the signature (bytes).
const SIGNATURE: usize = 8;

/// Checks every chunk's CRC-32 and the Adler-32 of the pixels (PNG, third edition, 5.3 and 10.3).
///
/// # Errors
/// The damage.
pub(super) fn check_png(bytes: &[u8]) -> Result<(), Damage> {
    let mut rest = bytes.get(SIGNATURE..).unwrap_or_default();
    let mut pixels = Pixels { stream: Decompress::new(true), out: vec![0; 32 << 10], ended: false };
    loop {
        let cut = "its end is missing";
        let (&length, behind) = rest.split_first_chunk().ok_or(cut)?;
        let length = u32::from_be_bytes(length) as usize;
        // The CRC is over the chunk's type and content, and stands behind them.
        let (checked, behind) = length.checked_add(4).and_then(|length| behind.split_at_checked(length)).ok_or(cut)?;
        let (&crc, behind) = behind.split_first_chunk().ok_or(cut)?;
        let mut computed = Crc::new();
        computed.update(checked);
        if computed.sum() != u32::from_be_bytes(crc) {
            return Err("a part of it has the wrong checksum");
        }
        match &checked[..4] {
            b"IDAT" => pixels.inflate(&checked[4..])?,
            b"IEND" => break,
            _ => {}
        }
        rest = behind;
    }
    if pixels.ended { Ok(()) } else { Err("its pixels are cut short") }
}

/// The pixels as they are inflated; none is kept.
struct Pixels {
    stream: Decompress,
    out: Vec<u8>,
    ended: bool,
}

impl Pixels {
    fn inflate(&mut self, mut data: &[u8]) -> Result<(), Damage> {
        while !self.ended && !data.is_empty() {
            let (read, written) = (self.stream.total_in(), self.stream.total_out());
            let status = self.stream.decompress(data, &mut self.out, FlushDecompress::None);
            let status = status.map_err(|_| "its pixels have the wrong checksum or cannot be inflated")?;
            data = &data[(self.stream.total_in() - read) as usize..];
            self.ended = status == Status::StreamEnd;
            let stuck = self.stream.total_in() == read && self.stream.total_out() == written;
            if self.stream.total_out() > DECODER_BYTES_MAX || (stuck && !self.ended) {
                return Err("its pixels cannot be inflated");
            }
        }
        Ok(())
    }
}
