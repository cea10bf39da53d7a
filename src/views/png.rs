//! Check of a PNG file: the decoder does not look at the checksum of the pixels.

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::jpeg_scans::Problem;
use crate::limits::DECODER_BYTES_MAX;

/// Length of the signature (bytes).
const SIGNATURE: usize = 8;

/// Checks every chunk's CRC-32 and the Adler-32 of the pixels (PNG, third edition, 5.3 and 10.3).
///
/// # Errors
/// The damage.
pub(super) fn check_png(bytes: &[u8]) -> Result<(), Problem> {
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
    pixels.finish()
}

/// The pixels as they are inflated; none is kept.
struct Pixels {
    stream: Decompress,
    out: Vec<u8>,
    ended: bool,
}

impl Pixels {
    fn inflate(&mut self, mut data: &[u8]) -> Result<(), Problem> {
        while !self.ended && !data.is_empty() {
            let read = self.step(data)?;
            data = &data[read..];
        }
        Ok(())
    }

    /// Inflates what is left once all data was read: the last of it may have filled the output several times.
    fn finish(&mut self) -> Result<(), Problem> {
        while !self.ended {
            self.step(&[])?;
        }
        Ok(())
    }

    /// Takes some of the data, and gives the number of bytes taken.
    fn step(&mut self, data: &[u8]) -> Result<usize, Problem> {
        let (read, written) = (self.stream.total_in(), self.stream.total_out());
        let status = self.stream.decompress(data, &mut self.out, FlushDecompress::None);
        let status = status.map_err(|_| "its pixels have the wrong checksum or cannot be inflated")?;
        self.ended = status == Status::StreamEnd;
        let taken = self.stream.total_in() - read;
        if !self.ended && taken == 0 && self.stream.total_out() == written {
            return Err("its pixels are cut short");
        }
        if self.stream.total_out() > DECODER_BYTES_MAX {
            return Err("its pixels are more than any image has");
        }
        Ok(taken as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::{Pixels as Picture, encode_png};

    #[test]
    fn whole_files_of_any_size_have_no_damage_and_cut_ones_do() {
        for side in [1, 40, 300, 700] {
            for noise in [0, 31] {
                let bytes = (0..side * side * 3).map(|place| (place * noise % 251) as u8).collect();
                let png = encode_png(&Picture::new(side, side, bytes));
                assert_eq!(check_png(&png), Ok(()), "{side} × {side}");
                for length in (0..png.len()).step_by(png.len() / 20 + 1) {
                    assert!(check_png(&png[..length]).is_err(), "{side} × {side}, cut at {length}");
                }
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let bytes = (0..20 * 20 * 3).map(|place| (place * 31 % 251) as u8).collect();
        let png = encode_png(&Picture::new(20, 20, bytes));
        for place in SIGNATURE..png.len() {
            let mut damaged = png.clone();
            damaged[place] ^= 1 << (place % 8);
            assert!(check_png(&damaged).is_err(), "byte {place}");
        }
    }
}
