//! Structure of a JPEG file (ITU T.81, annex B): its segments, up to its end.

const END_OF_IMAGE: u8 = 0xd9;
pub(super) const START_OF_SCAN: u8 = 0xda;

/// A marker with what belongs to it.
pub(super) struct Segment<'a> {
    /// Code of the marker.
    pub marker: u8,
    /// Content behind the length field; empty for markers that stand alone.
    pub content: &'a [u8],
    /// Place behind the segment.
    pub end: usize,
}

/// The segments of a file before its end-of-image marker.
pub(super) struct Segments<'a> {
    bytes: &'a [u8],
    position: usize,
    complete: bool,
}

impl<'a> Segments<'a> {
    /// Those of a file, behind its start-of-image marker.
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 2, complete: false }
    }

    /// Goes on at a place in the file, as behind the data of a scan.
    pub(super) fn go_on_at(&mut self, position: usize) {
        self.position = position;
    }

    /// True once the end-of-image marker was met. Bytes behind it are of no interest: cameras append previews and
    /// recordings.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The code of the next marker, which `position` is moved behind.
    fn next_marker(&mut self) -> Option<u8> {
        let start = self.position + self.bytes.get(self.position..)?.iter().position(|&byte| byte == 0xff)?;
        // Any number of fill bytes may come before a marker's code.
        let code = start + self.bytes[start..].iter().position(|&byte| byte != 0xff)?;
        self.position = code + 1;
        Some(self.bytes[code])
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        loop {
            let marker = self.next_marker()?;
            match marker {
                END_OF_IMAGE => {
                    self.complete = true;
                    return None;
                }
                // Restart markers and TEM stand alone; a stuffed zero is no marker.
                0x00 | 0x01 | 0xd0..=0xd7 => {}
                _ => {
                    let field = self.bytes.get(self.position..)?.first_chunk()?;
                    let length = usize::from(u16::from_be_bytes(*field)).checked_sub(2)?;
                    let content = self.bytes.get(self.position + 2..self.position + 2 + length)?;
                    self.position += 2 + length;
                    return Some(Segment { marker, content, end: self.position });
                }
            }
        }
    }
}
