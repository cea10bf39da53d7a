//! A stream of bytes cut into JPEGs: MJPEG as `ffmpeg`, `rpicam-vid`, `gst-launch-1.0` and cameras send it.
//!
//! Bytes between two JPEGs, such as the headers of an HTTP stream, are passed over. A JPEG that is cut short by
//! the start of the next is dropped.

use std::borrow::Cow;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;

use super::{Content, Picture, Source, SourceFailure, Wait};
use crate::limits::FRAME_BYTES_MAX;

const START_OF_IMAGE: u8 = 0xd8;
const END_OF_IMAGE: u8 = 0xd9;
const START_OF_SCAN: u8 = 0xda;
const HUFFMAN_TABLES: u8 = 0xc4;

/// Cuts a stream of bytes into JPEGs.
#[derive(Debug, Default)]
pub struct JpegSplitter {
    buffer: Vec<u8>,
    /// End of what is known to belong to the JPEG that begins the buffer (bytes); 0 while there is none.
    at: usize,
    in_scan: bool,
    /// JPEGs that were dropped because they were cut short, malformed or too long (count).
    pub dropped: u64,
}

impl JpegSplitter {
    /// Takes bytes as they come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole JPEG, if its bytes are there.
    pub fn next_jpeg(&mut self) -> Option<Vec<u8>> {
        loop {
            if self.at == 0 && !self.find_start() {
                return None;
            }
            let marker = if self.in_scan { self.scan_marker() } else { self.header_marker() };
            match marker {
                Found::Marker(END_OF_IMAGE) => {
                    let rest = self.buffer.split_off(self.at);
                    let jpeg = std::mem::replace(&mut self.buffer, rest);
                    (self.at, self.in_scan) = (0, false);
                    return Some(jpeg);
                }
                // The marker stays in the buffer: it begins the next JPEG.
                Found::Marker(START_OF_IMAGE) => self.drop_before(self.at - 2),
                Found::Marker(code) => {
                    // Also behind a scan: a progressive JPEG has tables and further scans after the first.
                    if !self.skip_segment(code) {
                        // Segments without end are no JPEG either.
                        if self.buffer.len() > FRAME_BYTES_MAX {
                            self.drop_before(self.buffer.len());
                        }
                        return None;
                    }
                }
                Found::Nonsense => self.drop_before(self.at),
                // A frame without an end is no MJPEG, and would fill the memory.
                Found::Nothing if self.buffer.len() > FRAME_BYTES_MAX => self.drop_before(self.buffer.len()),
                Found::Nothing => return None,
            }
        }
    }

    /// Bytes that wait for the rest of their JPEG (count).
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// Drops a JPEG that does not go on, up to a byte of the buffer.
    fn drop_before(&mut self, end: usize) {
        self.buffer.drain(..end);
        (self.at, self.in_scan) = (0, false);
        self.dropped += 1;
    }

    /// Brings the next start marker to the front; passes over everything before it.
    fn find_start(&mut self) -> bool {
        // The byte after the marker is compared as well: `FF D8` alone occurs by chance in what stands between JPEGs,
        // and a JPEG always goes on with another marker.
        let start = self.buffer.windows(3).position(|window| window == [0xff, START_OF_IMAGE, 0xff]);
        // The first bytes of a start marker may be the last that came.
        self.buffer.drain(..start.unwrap_or(self.buffer.len().saturating_sub(2)));
        self.at = if start.is_some() { 2 } else { 0 };
        start.is_some()
    }

    /// The marker at the present place, where a header must have one: between two segments.
    fn header_marker(&mut self) -> Found {
        while let Some(&[first, code]) = self.buffer.get(self.at..self.at + 2).and_then(<[u8]>::first_chunk) {
            match (first, code) {
                // Fill bytes: any number may stand before a marker (ITU T.81, B.1.1.2).
                (0xff, 0xff) => self.at += 1,
                (0xff, 1..) => {
                    self.at += 2;
                    return Found::Marker(code);
                }
                _ => return Found::Nonsense,
            }
        }
        Found::Nothing
    }

    /// The next marker of entropy-coded data that is neither stuffing nor a restart.
    fn scan_marker(&mut self) -> Found {
        while let Some(offset) = self.buffer[self.at..].iter().position(|&byte| byte == 0xff) {
            self.at += offset;
            match self.buffer.get(self.at + 1) {
                None => return Found::Nothing,
                Some(0xff) => self.at += 1,
                // An `FF` in the data is followed by a stuffed zero, and restart markers stand inside a scan (ITU T.81,
                // B.1.1.5).
                Some(0 | 0xd0..=0xd7) => self.at += 2,
                Some(&code) => {
                    self.at += 2;
                    return Found::Marker(code);
                }
            }
        }
        self.at = self.buffer.len();
        Found::Nothing
    }

    /// Moves behind the segment of a marker; false if its length has not come yet.
    fn skip_segment(&mut self, code: u8) -> bool {
        // `TEM` and restart markers have no length (ITU T.81, table B.1).
        if matches!(code, 0x01 | 0xd0..=0xd7) {
            return true;
        }
        let Some(&field) = self.buffer[self.at..].first_chunk() else {
            // Back before the marker, which is read again as one of a header when more bytes are there.
            self.at -= 2;
            self.in_scan = false;
            return false;
        };
        let length = usize::from(u16::from_be_bytes(field));
        // The length counts its own two bytes, so that less than 2 is no segment.
        if length < 2 {
            self.drop_before(self.at);
            return true;
        }
        if self.at + length > self.buffer.len() {
            self.at -= 2;
            self.in_scan = false;
            return false;
        }
        self.at += length;
        self.in_scan = code == START_OF_SCAN;
        true
    }
}

enum Found {
    Marker(u8),
    /// The bytes here can be no part of a JPEG.
    Nonsense,
    /// More bytes are needed.
    Nothing,
}

/// A source that reads MJPEG.
pub(crate) struct Jpegs<R> {
    input: R,
    splitter: JpegSplitter,
    chunk: Vec<u8>,
}

impl<R: Read + AsFd> Jpegs<R> {
    pub(crate) fn new(input: R) -> Self {
        // 64 KiB is the capacity of a Linux pipe: one read can empty it.
        Self { input, splitter: JpegSplitter::default(), chunk: vec![0; 64 << 10] }
    }
}

impl<R: Read + AsFd> Source for Jpegs<R> {
    fn next(&mut self, wait: &Wait) -> Result<Picture, SourceFailure> {
        // Bytes without a picture are another fault than silence, and are reported as such.
        let (mut read, dropped) = (0_u64, self.splitter.dropped);
        loop {
            if let Some(jpeg) = self.splitter.next_jpeg() {
                let jpeg = with_huffman_tables(&jpeg).into_owned();
                return Ok(Picture { name: None, content: Content::File(jpeg) });
            }
            match wait.readable(&self.input) {
                Err(SourceFailure::TimedOut) if read > 0 || self.splitter.dropped > dropped => {
                    return Err(SourceFailure::Undecodable(format!(
                        "{read} bytes came in time, and no whole JPEG among them"
                    )));
                }
                waited => waited?,
            }
            match self.input.read(&mut self.chunk) {
                // Up to two bytes are kept in any case, since they may begin a start marker.
                Ok(0) if self.splitter.pending() > 2 => {
                    return Err(SourceFailure::Ended(format!("{} bytes into a JPEG", self.splitter.pending())));
                }
                Ok(0) => return Err(SourceFailure::Ended("there is no more input".into())),
                Ok(count) => {
                    read += count as u64;
                    self.splitter.push(&self.chunk[..count]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(SourceFailure::Failed(format!("cannot read: {error}"))),
            }
        }
    }

    fn dropped(&self) -> u64 {
        self.splitter.dropped
    }
}

/// A JPEG with Huffman tables: the MJPEG of many USB cameras leaves out the usual ones, as AVI files do.
///
/// The tables are those of ITU T.81, annex K.3.
pub(crate) fn with_huffman_tables(jpeg: &[u8]) -> Cow<'_, [u8]> {
    match scan_without_tables(jpeg) {
        Some(at) => Cow::Owned([&jpeg[..at], &standard_tables(), &jpeg[at..]].concat()),
        None => Cow::Borrowed(jpeg),
    }
}

/// Offset of the first scan, if no table was defined before.
fn scan_without_tables(jpeg: &[u8]) -> Option<usize> {
    // Behind the start marker. What is no chain of segments is left as it is, for the decoder to refuse.
    let mut at = 2;
    while let Some(&[0xff, code, high, low]) = jpeg.get(at..at + 4).and_then(<[u8]>::first_chunk) {
        match code {
            START_OF_SCAN => return Some(at),
            HUFFMAN_TABLES => return None,
            0xff => at += 1,
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
    None
}

/// The segment that defines the four usual tables.
fn standard_tables() -> Vec<u8> {
    let luma_dc = ([0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], (0..12).collect::<Vec<u8>>());
    let chroma_dc = ([0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0], (0..12).collect());
    let luma_ac = ([0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7d], LUMA_AC.to_vec());
    let chroma_ac = ([0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77], CHROMA_AC.to_vec());
    // 0x01a2 = 418 bytes: the length itself, and four tables of 17 bytes with 12, 162, 12 and 162 values.
    let mut segment = vec![0xff, HUFFMAN_TABLES, 0x01, 0xa2];
    // Class in the high bits (0 DC, 1 AC), destination in the low ones (0 luma, 1 chroma).
    for (class, (counts, values)) in [(0x00, luma_dc), (0x10, luma_ac), (0x01, chroma_dc), (0x11, chroma_ac)] {
        segment.push(class);
        segment.extend(counts);
        segment.extend(values);
    }
    segment
}

#[rustfmt::skip]
const LUMA_AC: [u8; 162] = [
    0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71,
    0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72,
    0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x34, 0x35, 0x36, 0x37,
    0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59,
    0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83,
    0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3,
    0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3,
    0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2,
    0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
];

#[rustfmt::skip]
const CHROMA_AC: [u8; 162] = [
    0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22,
    0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0, 0x15, 0x62, 0x72, 0xd1,
    0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x35, 0x36,
    0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58,
    0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a,
    0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a,
    0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba,
    0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda,
    0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::{Pixels, decode, encode_jpeg};

    fn picture(shade: u8) -> Pixels {
        let mut pixels = Pixels::black(40, 24);
        pixels.bytes_mut().iter_mut().enumerate().for_each(|(index, byte)| *byte = (index as u8).wrapping_mul(shade));
        pixels
    }

    fn jpeg(shade: u8) -> Vec<u8> {
        encode_jpeg(&picture(shade), 90)
    }

    /// All JPEGs of a stream that comes in pieces of `size` bytes.
    fn split(stream: &[u8], size: usize) -> (Vec<Vec<u8>>, u64) {
        let mut splitter = JpegSplitter::default();
        let mut found = Vec::new();
        for piece in stream.chunks(size) {
            splitter.push(piece);
            found.extend(std::iter::from_fn(|| splitter.next_jpeg()));
        }
        (found, splitter.dropped)
    }

    #[test]
    fn frames_come_out_whole_however_the_stream_is_cut() {
        // A thumbnail inside a segment has an end marker of its own, and fill bytes may stand before any marker.
        let thumbnail = [&[0xff, 0xe1, 0, 8][..], &[0xff, 0xd8, 0xff, 0xd9, 1, 2], &[0xff]].concat();
        let with_thumbnail = [&jpeg(3)[..2], &thumbnail, &jpeg(3)[2..]].concat();
        let frames = [jpeg(1), with_thumbnail, jpeg(7)];
        let between = [&b"--frame\r\nContent-Type: image/jpeg\r\n\r\n"[..], b"\r\n\xff\xd8", b"", b"\xff"];
        let stream: Vec<u8> = (0..9).flat_map(|i| [between[i % 4], &frames[i % 3]].concat()).collect();
        for size in [1, 2, 3, 7, 100, 1 << 20] {
            let (found, _) = split(&stream, size);
            assert_eq!(found.len(), 9, "pieces of {size}");
            for (index, frame) in found.iter().enumerate() {
                assert_eq!(*frame, frames[index % 3], "frame {index}, pieces of {size}");
            }
        }
    }

    #[test]
    fn a_frame_that_is_cut_short_is_dropped_and_the_next_is_whole() {
        let (first, second) = (jpeg(5), jpeg(9));
        for kept in [first.len() - 2, first.len() / 2 + 200, first.len() - 40] {
            let stream = [&first[..kept], &second, &second].concat();
            let (found, dropped) = split(&stream, 64);
            assert_eq!((found.len(), dropped), (2, 1), "{kept} of {}", first.len());
            assert!(found.iter().all(|frame| *frame == second));
        }
    }

    #[test]
    fn garbage_gives_no_frame_and_takes_no_memory() {
        let noise: Vec<u8> = (0..300_000_u32).map(|i| blake3::hash(&i.to_le_bytes()).as_bytes()[0]).collect();
        let mut splitter = JpegSplitter::default();
        for _ in 0..100 {
            splitter.push(&noise);
            while splitter.next_jpeg().is_some() {}
        }
        // A start marker by chance, then a scan that never ends: bounded all the same.
        let endless = [&jpeg(1)[..jpeg(1).len() - 2], &vec![0; 2 * FRAME_BYTES_MAX]].concat();
        for piece in endless.chunks(1 << 20) {
            splitter.push(piece);
            assert!(splitter.next_jpeg().is_none());
            assert!(splitter.pending() <= FRAME_BYTES_MAX + (2 << 20), "{}", splitter.pending());
        }
        splitter.push(&jpeg(3));
        assert_eq!(splitter.next_jpeg(), Some(jpeg(3)), "and the next frame is found");
    }

    #[test]
    fn segments_without_end_take_no_memory() {
        let segment = [&[0xff, 0xe1, 0xff, 0xff][..], &[0; 0xfffd]].concat();
        let mut splitter = JpegSplitter::default();
        splitter.push(&[0xff, 0xd8]);
        // One byte short of a whole segment each time, so that the splitter always waits within one.
        splitter.push(&segment[..segment.len() - 1]);
        for _ in 0..2 * FRAME_BYTES_MAX / segment.len() {
            splitter.push(&segment[segment.len() - 1..]);
            splitter.push(&segment[..segment.len() - 1]);
            assert!(splitter.next_jpeg().is_none());
            assert!(splitter.pending() <= FRAME_BYTES_MAX + 2 * segment.len(), "{}", splitter.pending());
        }
        assert!(splitter.dropped > 0);
    }

    #[test]
    fn tables_that_a_camera_left_out_are_put_back() {
        let whole = jpeg(11);
        let mut bare = whole.clone();
        while let Some(at) = bare.windows(2).position(|pair| pair == [0xff, HUFFMAN_TABLES]) {
            let length = usize::from(u16::from_be_bytes([bare[at + 2], bare[at + 3]]));
            bare.drain(at..at + 2 + length);
        }
        assert!(bare.len() + 400 < whole.len(), "the tables are gone");
        let mended = with_huffman_tables(&bare);
        assert_eq!(decode(&mended).unwrap().bytes(), decode(&whole).unwrap().bytes());
        assert!(matches!(with_huffman_tables(&whole), Cow::Borrowed(_)), "what has tables is left alone");
        for cut in 0..whole.len().min(700) {
            with_huffman_tables(&whole[..cut]);
        }
    }
}
