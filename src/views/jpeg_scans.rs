//! Check of a JPEG's entropy-coded data (ITU T.81, annexes F and G): decoders fill what is damaged with grey or with noise
//! and say nothing, and the picture gets a confident answer all the same.
//!
//! Every scan is parsed to its end without computing pixels. Damage shows as a code that is in no table, a coefficient past
//! the last, a level that no picture has, a restart marker out of turn, or data that ends before the last block or goes
//! on behind it.

use super::jpeg::{START_OF_SCAN, Segments};
use crate::limits::IMAGE_PIXELS_MAX;

/// Bytes between the last block and the next marker that are no damage: many cameras leave a few there.
const SPARE_BYTES: usize = 2;
/// Times that each block may be looked at; the usual progressive file looks at it about five times. More is made to
/// keep decoders busy.
const VISITS_MAX: u64 = 40;
/// Largest sampling factor (T.81, B.2.2).
const SAMPLING_MAX: usize = 4;

/// A component of the picture, such as luma.
struct Component {
    id: u8,
    /// Blocks of an interleaved unit, across and down.
    sampling: (usize, usize),
    /// Blocks of the component by itself, across and down.
    blocks: (usize, usize),
    /// Blocks with those that fill up the interleaved units, across.
    stride: usize,
    /// Number of its quantisation table.
    table: usize,
    /// Coefficients of each block that are not 0 so far, as bits; kept for progressive files alone.
    nonzero: Vec<u64>,
    /// DC difference of the block before.
    predicted: i32,
    /// Bits that are still to come of each coefficient.
    missing: [u8; 64],
}

/// The picture as its frame header describes it.
struct Frame {
    progressive: bool,
    components: Vec<Component>,
    /// Interleaved units, across and down.
    units: (usize, usize),
    visits_left: u64,
}

/// Codes of one Huffman table.
struct Table {
    /// Length and symbol of the code that begins with these 8 bits; length 0 if it is longer.
    short: [(u8, u8); 256],
    /// For each length: the first code, the place of its symbol, and the number of codes.
    lengths: [(u32, usize, u32); 17],
    symbols: Vec<u8>,
}

/// Problem of a file, as the end of a sentence.
pub(super) type Problem = &'static str;

/// Damage of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// Some of the pixels are not in the file, and a decoder makes them up.
    Broken(Problem),
    /// The file has more scans than any picture needs: it was made to keep decoders busy.
    TooManyScans,
}

impl Damage {
    /// The problem.
    pub(super) fn problem(self) -> Problem {
        match self {
            Self::Broken(problem) => problem,
            Self::TooManyScans => "it has more scans than any picture needs",
        }
    }
}

impl From<Problem> for Damage {
    fn from(problem: Problem) -> Self {
        Self::Broken(problem)
    }
}

const TOO_MANY: Problem = "a block has more coefficients than 64";
const TOO_LARGE: Problem = "a level is larger than any picture has";
const NO_TABLE: Problem = "a scan names a Huffman table that there is not";

/// Damage of a JPEG, if it has any. Kinds of JPEG that the decoder does not read are left to it.
///
/// # Errors
/// The damage, as the end of a sentence.
pub(super) fn check_jpeg(bytes: &[u8]) -> Result<(), Damage> {
    let mut tables: [[Option<Table>; 4]; 2] = Default::default();
    let mut steps = [[1; 64]; 4];
    let mut interval = 0;
    let mut frame: Option<Frame> = None;
    let mut segments = Segments::of(bytes);
    while let Some(segment) = segments.next() {
        let content = segment.content;
        match segment.marker {
            0xc0..=0xc2 if frame.is_some() => return Err("it has two pictures in one".into()),
            0xc0..=0xc2 => match Frame::parse(segment.marker == 0xc2, content) {
                Some(parsed) => frame = Some(parsed),
                None => return Ok(()),
            },
            // Lossless, arithmetic and hierarchical frames.
            0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => return Ok(()),
            0xc4 => read_tables(content, &mut tables).ok_or("a Huffman table is malformed")?,
            0xdb => read_steps(content, &mut steps).ok_or("a quantisation table is malformed")?,
            0xdd => interval = usize::from(u16::from_be_bytes(*content.first_chunk().ok_or("a segment is cut short")?)),
            START_OF_SCAN => {
                let frame = frame.as_mut().ok_or("a scan comes before the picture's header")?;
                let mut bits = Bits::new(bytes, segment.end);
                scan(frame, content, &tables, &steps, interval, &mut bits)?;
                segments.go_on_at(bits.position);
            }
            _ => {}
        }
    }
    if !segments.is_complete() {
        return Err("its end is missing".into());
    }
    match frame {
        None => Err("it has no picture".into()),
        Some(frame) if frame.components.iter().all(|component| component.missing == [0; 64]) => Ok(()),
        Some(_) => Err("a part of its picture has no data".into()),
    }
}

impl Frame {
    /// `None` for what the decoder refuses, or nothing can be said about.
    fn parse(progressive: bool, content: &[u8]) -> Option<Self> {
        let &[precision, h1, h0, w1, w0, count] = content.first_chunk()?;
        let (height, width) = (usize::from(u16::from_be_bytes([h1, h0])), usize::from(u16::from_be_bytes([w1, w0])));
        if precision != 8
            || height * width == 0
            || (height * width) as u64 > IMAGE_PIXELS_MAX
            || !(1..=4).contains(&count)
        {
            return None;
        }
        let fields = content.get(6..6 + 3 * usize::from(count))?;
        let parsed = fields
            .chunks_exact(3)
            .map(|field| (field[0], usize::from(field[1] >> 4), usize::from(field[1] & 15), field[2]));
        let parsed: Vec<_> = parsed.collect();
        let fits = |&(_, h, v, table): &(u8, usize, usize, u8)| {
            (1..=SAMPLING_MAX).contains(&h) && (1..=SAMPLING_MAX).contains(&v) && table < 4
        };
        if !parsed.iter().all(fits) {
            return None;
        }
        let across = parsed.iter().map(|part| part.1).max()?;
        let down = parsed.iter().map(|part| part.2).max()?;
        let units = (width.div_ceil(8 * across), height.div_ceil(8 * down));
        let components: Vec<Component> = parsed
            .into_iter()
            .map(|(id, h, v, table)| {
                let blocks = ((width * h).div_ceil(across).div_ceil(8), (height * v).div_ceil(down).div_ceil(8));
                let kept = if progressive { units.0 * h * units.1 * v } else { 0 };
                Component {
                    id,
                    sampling: (h, v),
                    blocks,
                    stride: units.0 * h,
                    table: table.into(),
                    nonzero: vec![0; kept],
                    predicted: 0,
                    missing: [u8::MAX; 64],
                }
            })
            .collect();
        let blocks: usize = components.iter().map(|part| part.stride * units.1 * part.sampling.1).sum();
        Some(Self { progressive, components, units, visits_left: VISITS_MAX * blocks as u64 })
    }
}

/// Bounds of a scan's coefficients, and its place in the successive approximation (T.81, G.1.1).
#[derive(Clone, Copy)]
struct Band {
    first: usize,
    last: usize,
    /// True if an earlier scan had the higher bits.
    refines: bool,
    /// Bits that later scans add.
    shift: u8,
}

fn scan(
    frame: &mut Frame,
    header: &[u8],
    tables: &[[Option<Table>; 4]; 2],
    steps: &[[i32; 64]; 4],
    interval: usize,
    bits: &mut Bits,
) -> Result<(), Damage> {
    let malformed = "the header of a scan is malformed";
    let count = usize::from(*header.first().ok_or(malformed)?);
    let fields = header.get(1..1 + 2 * count).filter(|_| (1..=4).contains(&count)).ok_or(malformed)?;
    let &[first, last, approximation] = header.get(1 + 2 * count..).and_then(<[u8]>::first_chunk).ok_or(malformed)?;
    let band = match frame.progressive {
        true => {
            Band { first: first.into(), last: last.into(), refines: approximation >> 4 > 0, shift: approximation & 15 }
        }
        false => Band { first: 0, last: 63, refines: false, shift: 0 },
    };
    let is_dc_alone = band.first == 0 && band.last == 0;
    if band.last > 63
        || band.shift > 13
        || band.first > band.last
        || (frame.progressive && band.first == 0 && !is_dc_alone)
    {
        return Err(malformed.into());
    }
    let mut parts = Vec::with_capacity(count);
    for field in fields.chunks_exact(2) {
        let place = frame.components.iter().position(|part| part.id == field[0]).ok_or(malformed)?;
        let table = |class: usize, number: u8| tables[class].get(usize::from(number)).and_then(Option::as_ref);
        let (dc, ac) = (table(0, field[1] >> 4), table(1, field[1] & 15));
        let needs_dc = band.first == 0 && !band.refines;
        if (needs_dc && dc.is_none()) || (band.last > 0 && ac.is_none()) {
            return Err(NO_TABLE.into());
        }
        parts.push((place, dc, ac));
    }
    if count > 1 && frame.progressive && !is_dc_alone {
        return Err(malformed.into());
    }
    let (across, down) = match parts[..] {
        [(only, ..)] => frame.components[only].blocks,
        _ => frame.units,
    };
    let visits: usize = match parts.len() {
        1 => across * down,
        _ => {
            across
                * down
                * parts.iter().map(|part| frame.components[part.0].sampling).map(|(h, v)| h * v).sum::<usize>()
        }
    };
    frame.visits_left = frame.visits_left.checked_sub(visits as u64).ok_or(Damage::TooManyScans)?;
    frame.components.iter_mut().for_each(|part| part.predicted = 0);
    let mut run = 0;
    for unit in 0..across * down {
        if interval > 0 && unit > 0 && unit % interval == 0 {
            bits.restart((unit / interval - 1) % 8)?;
            frame.components.iter_mut().for_each(|part| part.predicted = 0);
            run = 0;
        }
        let (column, row) = (unit % across, unit / across);
        for &(place, dc, ac) in &parts {
            let part = &mut frame.components[place];
            let (h, v) = if parts.len() == 1 { (1, 1) } else { part.sampling };
            for block in 0..h * v {
                let at = (row * v + block / h) * part.stride + column * h + block % h;
                match frame.progressive {
                    false => sequential_block(part, &steps[part.table], dc, ac, bits)?,
                    true if band.first == 0 && band.refines => drop(bits.take(1)?),
                    true if band.first == 0 => dc_difference(part, steps[part.table][0] << band.shift, dc, bits)?,
                    true => progressive_ac(&mut part.nonzero[at], ac, band, &mut run, bits)?,
                }
            }
        }
    }
    parts.iter().for_each(|part| frame.components[part.0].missing[band.first..=band.last].fill(band.shift));
    Ok(bits.finish()?)
}

fn sequential_block(
    part: &mut Component,
    steps: &[i32; 64],
    dc: Option<&Table>,
    ac: Option<&Table>,
    bits: &mut Bits,
) -> Result<(), Problem> {
    let Some(ac) = ac else { return Err(NO_TABLE) };
    dc_difference(part, steps[0], dc, bits)?;
    let mut place = 1;
    while place < 64 {
        let symbol = bits.symbol(ac)?;
        let (zeros, size) = (usize::from(symbol >> 4), symbol & 15);
        match (zeros, size) {
            (15, 0) => place += 16,
            (_, 0) => return Ok(()),
            _ => {
                place += zeros;
                let value = signed(bits.take(size)?, size);
                check_level(value, *steps.get(place).ok_or(TOO_MANY)?)?;
                place += 1;
            }
        }
    }
    if place > 64 { Err(TOO_MANY) } else { Ok(()) }
}

/// The DC coefficient of a block, as its difference from the block before; `step` is the step of its lowest bit.
fn dc_difference(part: &mut Component, step: i32, dc: Option<&Table>, bits: &mut Bits) -> Result<(), Problem> {
    let Some(table) = dc else { return Err(NO_TABLE) };
    let size = bits.symbol(table)?;
    if size > 11 {
        return Err(TOO_LARGE);
    }
    part.predicted += signed(bits.take(size)?, size);
    check_level(part.predicted, step)
}

/// The number of `size` bits `value` (T.81, F.2.2.1): those whose first bit is 0 are negative.
fn signed(value: u32, size: u8) -> i32 {
    let value = value as i32;
    if size > 0 && value < 1 << (size - 1) { value - (1 << size) + 1 } else { value }
}

/// Checks a coefficient against the largest there is. Samples of ±128 have a DC coefficient of at most 1024, and AC
/// coefficients of at most 928; the encoder may have rounded up by one step.
fn check_level(value: i32, step: i32) -> Result<(), Problem> {
    let level = i64::from(value.abs()) * i64::from(step);
    if level > 1024 + i64::from(step) { Err(TOO_LARGE) } else { Ok(()) }
}

/// One block of a scan of AC coefficients; `run` is the number of blocks still to come that have none (T.81, G.1.2).
fn progressive_ac(
    nonzero: &mut u64,
    ac: Option<&Table>,
    band: Band,
    run: &mut u32,
    bits: &mut Bits,
) -> Result<(), Problem> {
    let Some(ac) = ac else { return Err(NO_TABLE) };
    let mut place = band.first;
    while *run == 0 && place <= band.last {
        let symbol = bits.symbol(ac)?;
        let (zeros, size) = (u32::from(symbol >> 4), symbol & 15);
        if size == 0 && zeros < 15 {
            *run = (1 << zeros) + bits.take(zeros as u8)?;
            break;
        }
        if size > 10 || (band.refines && size > 1) {
            return Err(TOO_LARGE);
        }
        bits.take(size)?;
        // A run counts coefficients that are 0 so far; the others get a bit of refinement each.
        let mut left = zeros;
        while place <= band.last {
            if band.refines && *nonzero >> place & 1 == 1 {
                bits.take(1)?;
            } else if left == 0 {
                break;
            } else {
                left -= 1;
            }
            place += 1;
        }
        if place > band.last && (size > 0 || left > 0) {
            return Err(TOO_MANY);
        }
        if size > 0 {
            *nonzero |= 1 << place;
        }
        place += 1;
    }
    if *run > 0 {
        *run -= 1;
        if band.refines {
            let rest = (place..=band.last).filter(|&place| *nonzero >> place & 1 == 1).count();
            for _ in 0..rest {
                bits.take(1)?;
            }
        }
    }
    Ok(())
}

fn read_tables(mut content: &[u8], tables: &mut [[Option<Table>; 4]; 2]) -> Option<()> {
    while let Some((&kind, rest)) = content.split_first() {
        let (counts, rest) = rest.split_first_chunk::<16>()?;
        let count: usize = counts.iter().map(|&count| usize::from(count)).sum();
        let (symbols, rest) = rest.split_at_checked(count)?;
        *tables.get_mut(usize::from(kind >> 4))?.get_mut(usize::from(kind & 15))? = Some(Table::new(counts, symbols)?);
        content = rest;
    }
    Some(())
}

fn read_steps(mut content: &[u8], steps: &mut [[i32; 64]; 4]) -> Option<()> {
    while let Some((&kind, rest)) = content.split_first() {
        let (wide, number) = (kind >> 4 > 0, usize::from(kind & 15));
        let (values, rest) = rest.split_at_checked(if wide { 128 } else { 64 })?;
        let table = steps.get_mut(number)?;
        for (step, value) in table.iter_mut().zip(values.chunks(if wide { 2 } else { 1 })) {
            *step = value.iter().fold(0, |number, &byte| number << 8 | i32::from(byte)).max(1);
        }
        content = rest;
    }
    Some(())
}

impl Table {
    /// `None` if there are more codes of a length than there can be.
    fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut table = Self { short: [(0, 0); 256], lengths: [(0, 0, 0); 17], symbols: symbols.to_vec() };
        let (mut code, mut place) = (0_u32, 0);
        for (length, &count) in (1_usize..).zip(counts) {
            table.lengths[length] = (code, place, count.into());
            for _ in 0..count {
                if code >= 1 << length {
                    return None;
                }
                if length <= 8 {
                    let first = (code as usize) << (8 - length);
                    table.short[first..first + (1 << (8 - length))].fill((length as u8, symbols[place]));
                }
                code += 1;
                place += 1;
            }
            code <<= 1;
        }
        Some(table)
    }
}

/// Entropy-coded data, read from its highest bits on.
struct Bits<'a> {
    bytes: &'a [u8],
    /// Place of the next byte.
    position: usize,
    buffer: u32,
    count: u8,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position, buffer: 0, count: 0 }
    }

    /// Fills the buffer to more than 16 bits, or up to the next marker.
    fn fill(&mut self) {
        while self.count <= 24 {
            let byte = match self.bytes.get(self.position..) {
                Some([0xff, 0, ..]) => {
                    self.position += 2;
                    0xff
                }
                Some([0xff, ..]) | Some([]) | None => return,
                Some([byte, ..]) => {
                    self.position += 1;
                    *byte
                }
            };
            self.buffer |= u32::from(byte) << (24 - self.count);
            self.count += 8;
        }
    }

    fn take(&mut self, count: u8) -> Result<u32, Problem> {
        if count == 0 {
            return Ok(0);
        }
        if self.count < count {
            self.fill();
            if self.count < count {
                return Err("its data ends before the last block");
            }
        }
        let value = self.buffer >> (32 - u32::from(count));
        self.buffer <<= count;
        self.count -= count;
        Ok(value)
    }

    fn symbol(&mut self, table: &Table) -> Result<u8, Problem> {
        if self.count < 16 {
            self.fill();
        }
        let (length, symbol) = table.short[(self.buffer >> 24) as usize];
        if length > 0 {
            return self.take(length).map(|_| symbol);
        }
        for length in 9..=16_u8 {
            let (first, place, count) = table.lengths[usize::from(length)];
            let code = self.buffer >> (32 - u32::from(length));
            if code >= first && code - first < count {
                self.take(length)?;
                return Ok(table.symbols[place + (code - first) as usize]);
            }
        }
        Err(if self.count < 16 { "its data ends before the last block" } else { "a code is in no table" })
    }

    /// Moves behind the restart marker that must follow.
    fn restart(&mut self, number: usize) -> Result<(), Problem> {
        self.finish()?;
        // Any number of fill bytes may come before a marker.
        while self.bytes.get(self.position + 1) == Some(&0xff) {
            self.position += 1;
        }
        if self.bytes.get(self.position + 1) != Some(&(0xd0 + number as u8)) {
            return Err("a restart marker is missing or out of turn");
        }
        self.position += 2;
        Ok(())
    }

    /// Drops the rest of the last byte, and moves to the marker that must follow.
    fn finish(&mut self) -> Result<(), Problem> {
        let spare = usize::from(self.count / 8);
        (self.buffer, self.count) = (0, 0);
        let rest = &self.bytes[self.position.min(self.bytes.len())..];
        let marker = rest.windows(2).position(|pair| pair[0] == 0xff && pair[1] != 0);
        let left = marker.unwrap_or(rest.len());
        if spare + left > SPARE_BYTES {
            return Err("its data goes on behind the last block");
        }
        self.position += left;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// The demo photos that are JPEGs, and where their entropy-coded data begins.
    fn photos() -> Vec<(Vec<u8>, usize)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo/photos");
        let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "jpg"));
        paths.sort();
        assert!(paths.len() >= 8);
        let read = |path: &std::path::PathBuf| {
            let bytes = fs::read(path).unwrap();
            let mut segments = Segments::of(&bytes);
            let scan = segments.find(|segment| segment.marker == START_OF_SCAN).unwrap().end;
            (bytes, scan)
        };
        paths.iter().map(read).collect()
    }

    fn file(path: &str) -> Vec<u8> {
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
    }

    #[test]
    fn whole_files_of_every_kind_have_no_damage() {
        for (bytes, _) in photos() {
            assert_eq!(check_jpeg(&bytes), Ok(()));
        }
        for name in ["baseline", "grey", "cmyk", "progressive", "restarts", "turned"] {
            assert_eq!(check_jpeg(&file(&format!("fuzz/seeds/decode/{name}.jpg"))), Ok(()), "{name}");
        }
    }

    #[test]
    fn holes_and_cuts_are_seen() {
        for (bytes, scan) in photos() {
            for part in 1..10 {
                let at = scan + (bytes.len() - scan) * part / 10;
                let mut holed = bytes.clone();
                holed[at..(at + 512).min(bytes.len() - 2)].fill(0);
                assert!(check_jpeg(&holed).is_err(), "a hole at {at}");
                let cut = [&bytes[..at], b"\xff\xd9"].concat();
                assert!(check_jpeg(&cut).is_err(), "cut at {at}, with an end");
                assert!(check_jpeg(&bytes[..at]).is_err(), "cut at {at}");
                let doubled = [&bytes[..at], &bytes[at - 200..]].concat();
                assert!(check_jpeg(&doubled).is_err(), "200 bytes twice at {at}");
            }
            let empty = [&bytes[..scan], b"\xff\xd9"].concat();
            assert_eq!(check_jpeg(&empty), Err(Damage::Broken("its data ends before the last block")));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let (bytes, scan) = photos().remove(0);
        let found = |bytes: &[u8]| check_jpeg(bytes).unwrap_err().problem();
        assert_eq!(found(&bytes[..bytes.len() - 2]), "its end is missing");
        assert_eq!(found(b"\xff\xd8\xff\xd9"), "it has no picture");
        let header = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        assert_eq!(found(&[&bytes[..header + 19], &bytes[header..]].concat()), "it has two pictures in one");
        let spare = [&bytes[..bytes.len() - 2], &[1; 3], b"\xff\xd9"].concat();
        assert_eq!(found(&spare), "its data goes on behind the last block");
        let within = [&bytes[..bytes.len() - 2], &[1; 2], b"\xff\xd9"].concat();
        assert_eq!(check_jpeg(&within), Ok(()), "cameras leave a few bytes there");
        let restarts = file("fuzz/seeds/decode/restarts.jpg");
        let marker = restarts.windows(2).position(|pair| pair == [0xff, 0xd0]).unwrap();
        let renamed = [&restarts[..marker], b"\xff\xd3", &restarts[marker + 2..]].concat();
        assert_eq!(found(&renamed), "a restart marker is missing or out of turn");
        let progressive = file("fuzz/seeds/decode/progressive.jpg");
        let last = progressive.windows(2).rposition(|pair| pair == [0xff, START_OF_SCAN]).unwrap();
        assert_eq!(found(&[&progressive[..last], b"\xff\xd9"].concat()), "a part of its picture has no data");
        let scan_header = scan - 12;
        let many =
            [&bytes[..bytes.len() - 2], &bytes[scan_header - 2..bytes.len() - 2].repeat(50), b"\xff\xd9"].concat();
        assert_eq!(check_jpeg(&many), Err(Damage::TooManyScans));
        let answered = super::super::decode::decode_as(&many, crate::views::DamagedImages::Answer);
        assert!(answered.is_err(), "what is made to keep decoders busy is not decoded for anybody");
    }

    /// The other figure of docs/limits.md, for the JPEGs in the folder RTPT_PHOTOS and in those below:
    /// `RTPT_PHOTOS=DIR cargo test --release --lib whole_photos -- --ignored --nocapture`.
    #[test]
    #[ignore = "prints figures"]
    fn whole_photos_are_not_refused() {
        let mut left = vec![std::path::PathBuf::from(std::env::var_os("RTPT_PHOTOS").unwrap())];
        let mut count = 0;
        while let Some(path) = left.pop() {
            if path.is_dir() {
                left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
                count += 1;
                assert_eq!(check_jpeg(&bytes), Ok(()), "{}", path.display());
            }
        }
        println!("{count} JPEGs, none refused");
    }

    /// The shares that docs/limits.md states: `cargo test --lib detection_rates -- --ignored --nocapture`.
    #[test]
    #[ignore = "prints figures"]
    fn detection_rates() {
        type Change = fn(&mut Vec<u8>, usize, usize);
        let holes: Change = |bytes, at, end| bytes[at..end].fill(0);
        let lost: Change = |bytes, at, end| drop(bytes.drain(at..end));
        let cut: Change = |bytes, at, _| {
            bytes.truncate(at);
            bytes.extend([0xff, 0xd9]);
        };
        let flip: Change = |bytes, at, _| bytes[at] ^= 1 << (at % 8);
        let kinds = [("zeros", holes, 16), ("zeros", holes, 64), ("zeros", holes, 512), ("bytes lost", lost, 64)];
        for (name, change, size) in kinds.into_iter().chain([("cut, with an end", cut, 0), ("one bit", flip, 1)]) {
            let (mut seen, mut all) = (0, 0);
            for (bytes, scan) in photos() {
                for part in 1..20 {
                    let at = scan + (bytes.len() - scan) * part / 20;
                    let mut changed = bytes.clone();
                    change(&mut changed, at, (at + size).min(bytes.len() - 2));
                    all += 1;
                    seen += usize::from(check_jpeg(&changed).is_err());
                }
            }
            println!("{name} {size}: {seen} of {all}");
        }
    }
}
