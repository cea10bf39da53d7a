//! Specification of a source, as a user writes it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::camera::{CameraFormat, CameraSpec};
use crate::error::{Category, Class, Error, ProgramLayer, Result};
use crate::limits::CAMERA_SIDE_MAX;

/// A source of frames, as it is named.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SourceSpec {
    /// An image file or a folder of them, one after another and from the beginning again.
    Images {
        /// The file or folder.
        path: PathBuf,
        /// Time from one image to the next.
        every: Duration,
    },
    /// Images that are put into a folder.
    Watched(PathBuf),
    /// MJPEG on standard input.
    Input,
    /// A program and its arguments, whose standard output is MJPEG.
    Command(Vec<String>),
    /// A V4L2 camera.
    Camera(CameraSpec),
}

/// A specification that names no source of frames.
#[derive(Debug, thiserror::Error)]
#[error("the source {spec:?} {problem}")]
pub(crate) struct SpecError {
    /// The specification as it was given.
    spec: String,
    /// Problem found, and what to do.
    problem: String,
}

impl ProgramLayer for SpecError {
    fn class(&self) -> Class {
        (Category::Usage, "source")
    }
}

/// Default time from one image of a folder to the next (seconds).
const EVERY_S: f64 = 1.0;
/// Bounds of that time (seconds).
const EVERY_RANGE_S: (f64, f64) = (0.0, 86_400.0);

impl SourceSpec {
    /// Reads a source's name: `-`, `exec:COMMAND`, `watch:DIR`, `v4l2:DEVICE[?size=WxH&fps=N&format=mjpg|yuyv]`, a
    /// device file `/dev/video…`, or `PATH[?every=SECONDS]`.
    ///
    /// # Errors
    /// It is none of these, or an option is not known or out of range.
    pub(crate) fn parse(spec: &str) -> Result<Self> {
        let refused = |problem: String| Error::from(SpecError { spec: spec.into(), problem });
        if spec == "-" {
            return Ok(Self::Input);
        }
        if let Some(command) = spec.strip_prefix("exec:") {
            // Split like a shell's words, but no shell is run: nothing in the command is expanded.
            return match shlex::split(command) {
                Some(words) if !words.is_empty() => Ok(Self::Command(words)),
                Some(_) => Err(refused("names no program after exec:".into())),
                None => Err(refused("has an unclosed quote".into())),
            };
        }
        if let Some(folder) = spec.strip_prefix("watch:") {
            let named = !folder.is_empty();
            return named.then(|| Self::Watched(folder.into())).ok_or_else(|| refused("names no folder".into()));
        }
        // Before the options are cut off: an address may have a `?` of its own.
        if spec.contains("://") {
            let command = format!("exec:ffmpeg -loglevel error -i {spec} -c:v mjpeg -q:v 4 -f mjpeg -");
            return Err(refused(format!("is an address; have a program fetch it, such as {command:?}")));
        }
        let (path, options) = spec.split_once('?').unwrap_or((spec, ""));
        let camera = path.strip_prefix("v4l2:").or_else(|| path.starts_with("/dev/video").then_some(path));
        if camera.unwrap_or(path).is_empty() {
            let expected = "-, exec:COMMAND, watch:FOLDER, v4l2:/dev/video0, or an image or folder";
            return Err(refused(format!("is empty, expected {expected}")));
        }
        let scheme = path.split_once(':').map_or("", |(scheme, _)| scheme);
        let is_scheme = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
        // A file may have a colon in its name: a path that exists is one whatever it looks like.
        if camera.is_none() && is_scheme && !Path::new(path).exists() {
            let expected = "exec:COMMAND, watch:FOLDER, v4l2:DEVICE, or an image or folder";
            return Err(refused(format!("is not a source that rtpt knows, expected {expected}")));
        }
        let options = options.split('&').filter(|option| !option.is_empty());
        let unknown = |option: &str, known: &str| refused(format!("has the option {option:?}, expected {known}"));
        let Some(device) = camera else {
            let mut every = EVERY_S;
            for option in options {
                let value = option.strip_prefix("every=").and_then(|seconds| seconds.parse().ok());
                let (least, most) = EVERY_RANGE_S;
                every = value
                    // NaN is in no range and thus refused as well; `Duration::from_secs_f64` would panic over it.
                    .filter(|seconds| (least..=most).contains(seconds))
                    .ok_or_else(|| unknown(option, &format!("every=SECONDS, {least} to {most}")))?;
            }
            return Ok(Self::Images { path: path.into(), every: Duration::from_secs_f64(every) });
        };
        let mut camera = CameraSpec { device: device.into(), size: None, rate: None, format: None };
        for option in options {
            let known = "size=640x480, fps=15 or format=mjpg or yuyv";
            let parsed = match option.split_once('=') {
                Some(("size", size)) => {
                    camera.size = parse_size(size);
                    camera.size.is_some()
                }
                Some(("fps", rate)) => {
                    camera.rate = rate.parse().ok().filter(|rate| (1..=1000).contains(rate));
                    camera.rate.is_some()
                }
                Some(("format", name)) => {
                    camera.format = CameraFormat::named(name);
                    camera.format.is_some()
                }
                _ => false,
            };
            if !parsed {
                return Err(unknown(option, known));
            }
        }
        Ok(Self::Camera(camera))
    }

    /// True if the source goes on by itself, so that only the latest frame counts and silence is a fault.
    pub(crate) fn is_live(&self) -> bool {
        match self {
            Self::Input | Self::Command(_) | Self::Camera(_) => true,
            Self::Images { .. } | Self::Watched(_) => false,
        }
    }
}

fn parse_size(text: &str) -> Option<(u32, u32)> {
    let (width, height) = text.split_once('x')?;
    let side = |text: &str| text.parse().ok().filter(|side| (1..=CAMERA_SIDE_MAX).contains(side));
    Some((side(width)?, side(height)?))
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Images { path, .. } => write!(f, "{}", path.display()),
            Self::Watched(path) => write!(f, "watch:{}", path.display()),
            Self::Input => f.write_str("standard input"),
            // The program alone: its arguments may hold a camera's password, and this text goes to the log and to
            // clients.
            Self::Command(words) => write!(f, "exec:{}", words[0]),
            Self::Camera(camera) => write!(f, "{}", camera.device.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_source_has_a_name() {
        let parse = |spec| SourceSpec::parse(spec).unwrap();
        assert_eq!(parse("-"), SourceSpec::Input);
        let words = ["ffmpeg", "-i", "rtsp://cam/a b", "-"].map(String::from).to_vec();
        assert_eq!(parse("exec:ffmpeg -i 'rtsp://cam/a b' -"), SourceSpec::Command(words));
        assert_eq!(parse("watch:in box"), SourceSpec::Watched("in box".into()));
        let every = |seconds| Duration::from_secs_f64(seconds);
        assert_eq!(parse("photos"), SourceSpec::Images { path: "photos".into(), every: every(1.0) });
        assert_eq!(parse("a.jpg?every=0.25"), SourceSpec::Images { path: "a.jpg".into(), every: every(0.25) });
        let camera =
            |size, rate, format| SourceSpec::Camera(CameraSpec { device: "/dev/video0".into(), size, rate, format });
        assert_eq!(parse("/dev/video0"), camera(None, None, None));
        let all = parse("v4l2:/dev/video0?size=1280x720&fps=15&format=yuyv");
        assert_eq!(all, camera(Some((1280, 720)), Some(15), Some(CameraFormat::Yuyv)));
        assert_eq!(all.to_string(), "/dev/video0");
    }

    #[test]
    fn what_is_no_source_is_refused_with_what_is_one() {
        for (spec, problem) in [
            ("", "expected -, exec:COMMAND"),
            ("exec:", "no program"),
            ("exec:ffmpeg 'a", "quote"),
            ("watch:", "no folder"),
            ("v4l2:", "is empty"),
            ("rtsp://camera/stream", "exec:ffmpeg -loglevel error -i rtsp://camera/stream"),
            ("foo:bar", "is not a source that rtpt knows"),
            ("/dev/video0?size=0x480", "size=640x480"),
            ("/dev/video0?size=640", "size=640x480"),
            ("/dev/video0?size=4097x1", "size=640x480"),
            ("/dev/video0?fps=0", "fps=15"),
            ("/dev/video0?format=h264", "format=mjpg or yuyv"),
            ("/dev/video0?gain=3", "\"gain=3\""),
            ("photos?every=-1", "every=SECONDS"),
            ("photos?every=NaN", "every=SECONDS"),
            ("photos?rate=3", "\"rate=3\""),
        ] {
            let message = SourceSpec::parse(spec).unwrap_err().to_string();
            assert!(message.contains(problem), "{spec}: {message}");
        }
    }
}
