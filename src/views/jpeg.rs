//! Completeness check of a JPEG file.
//!
//! The decoder fills what is missing of a truncated JPEG with grey and says nothing. A half photo gets a confident
//! answer all the same, so the end marker is looked for here.

const END_OF_IMAGE: u8 = 0xd9;
const START_OF_SCAN: u8 = 0xda;

/// True if the markers of a JPEG (ITU T.81, annex B) lead from its start to its end-of-image marker.
///
/// Bytes behind that marker are of no interest: cameras append previews and recordings.
pub(crate) fn is_complete_jpeg(bytes: &[u8]) -> bool {
    // Behind the start-of-image marker, by which the format was recognised.
    let mut position = 2;
    while let Some(marker) = next_marker(bytes, &mut position) {
        match marker {
            END_OF_IMAGE => return true,
            // Restart markers and TEM stand alone; a stuffed zero or fill byte is no marker.
            0x00 | 0x01 | 0xd0..=0xd7 => {}
            _ => match segment_length(bytes, position) {
                Some(length) => position += length,
                None => return false,
            },
        }
        // The header of a scan has a length, the data that follow it have none.
        if marker == START_OF_SCAN {
            skip_entropy_coded_data(bytes, &mut position);
        }
    }
    false
}

/// The code of the next marker at or after `position`, which is moved behind it.
fn next_marker(bytes: &[u8], position: &mut usize) -> Option<u8> {
    let start = *position + bytes.get(*position..)?.iter().position(|&byte| byte == 0xff)?;
    // Any number of fill bytes 0xff may stand before a code (T.81, B.1.1.2).
    let code = start + bytes[start..].iter().position(|&byte| byte != 0xff)?;
    *position = code + 1;
    Some(bytes[code])
}

/// Length of the segment whose length field is at `position`; `None` if it reaches past the end.
fn segment_length(bytes: &[u8], position: usize) -> Option<usize> {
    let field = bytes.get(position..position + 2)?;
    let length = usize::from(u16::from_be_bytes([field[0], field[1]]));
    // The length counts its own two bytes. Less would lead nowhere.
    (length >= 2 && position + length <= bytes.len()).then_some(length)
}

/// Moves `position` to the first 0xff that is neither stuffing nor a restart marker.
fn skip_entropy_coded_data(bytes: &[u8], position: &mut usize) {
    // Encoders write 0xff in the data as 0xff 0x00.
    let inside = |code: u8| code == 0 || (0xd0..=0xd7).contains(&code);
    while let Some(pair) = bytes.get(*position..*position + 2) {
        if pair[0] == 0xff && !inside(pair[1]) {
            return;
        }
        *position += 1;
    }
    *position = bytes.len();
}
