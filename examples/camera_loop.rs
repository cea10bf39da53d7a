//! A camera's frames as they come: the latest counts, older ones are dropped while the encoder is busy.
//!
//! The camera is a program that writes MJPEG to its standard output:
//!
//! ```sh
//! cargo run --release --example camera_loop -- models/everyday/bundle rpicam-vid -n -t 0 --codec mjpeg -o -
//! cargo run --release --example camera_loop -- models/everyday/bundle ffmpeg -loglevel error -i /dev/video0 -c:v mjpeg -f mjpeg -
//! ```

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rtpt_edge::{Bundle, Classifier, Error};

/// Longest frame (bytes).
const FRAME_MAX: u64 = 16 << 20;

fn main() -> Result<(), Error> {
    let mut arguments = env::args().skip(1);
    let (Some(folder), Some(program)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: camera_loop BUNDLE PROGRAM ARGUMENT…");
        std::process::exit(2);
    };
    let bundle = Bundle::open(folder)?;
    let classifier = Classifier::builder(&bundle).views(8).build()?;
    let mut camera = Command::new(program).args(arguments).stdout(Stdio::piped()).spawn()?;
    let output = camera.stdout.take().expect("it was asked for");
    let (sender, frames) = channel();
    let reading = thread::spawn(move || {
        let mut output = BufReader::new(output);
        while let Some(frame) = next_jpeg(&mut output) {
            if sender.send(frame).is_err() {
                break;
            }
        }
    });
    while let Some((frame, dropped)) = latest(&frames) {
        match classifier.classify(&frame) {
            Ok(answer) => {
                let best = answer.best();
                let timings = answer.timings();
                println!(
                    "{} {:.0} %, {:.0} ms, {dropped} dropped",
                    best.label,
                    best.probability * 100.0,
                    timings.total
                );
            }
            // One bad frame is no reason to stop.
            Err(error) => eprintln!("a frame is left out: {error}"),
        }
    }
    reading.join().expect("the reader does not panic");
    camera.wait()?;
    Ok(())
}

/// The newest frame, and the number of those that it replaces; `None` when the camera has ended.
fn latest(frames: &Receiver<Vec<u8>>) -> Option<(Vec<u8>, usize)> {
    let mut frame = frames.recv().ok()?;
    let mut dropped = 0;
    while let Ok(newer) = frames.try_recv() {
        frame = newer;
        dropped += 1;
    }
    Some((frame, dropped))
}

/// The bytes up to the next end-of-image marker, FF D9: inside a scan FF is always followed by 0 or a restart.
///
/// Frames with an embedded thumbnail would be cut in two; cameras do not send any.
fn next_jpeg(stream: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    loop {
        let room = FRAME_MAX.checked_sub(frame.len() as u64)?;
        if stream.by_ref().take(room).read_until(0xd9, &mut frame).ok()? == 0 {
            return None;
        }
        if frame.ends_with(&[0xff, 0xd9]) {
            return Some(frame);
        }
    }
}
