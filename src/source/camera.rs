//! A V4L2 camera, by the kernel's interface (`linux/videodev2.h`): MJPG and YUYV in mapped buffers.
//!
//! The structures are the kernel's, field for field; a test runs them against its header.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::jpegs::with_huffman_tables;
use super::{Content, Lost, Picture, Source, Wait};
use crate::limits::{CAMERA_SIDE_MAX, FRAME_BYTES_MAX};

/// A camera and what is asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraSpec {
    /// The device file.
    pub device: PathBuf,
    /// Columns and rows (pixels), if not what the camera is set to.
    pub size: Option<(u32, u32)>,
    /// Frames a second, if not what the camera is set to.
    pub rate: Option<u32>,
    /// The pixel format, if not MJPG where there is a choice.
    pub format: Option<CameraFormat>,
}

/// A pixel format that is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CameraFormat {
    /// A JPEG a frame.
    Mjpg,
    /// Raw 4:2:2.
    Yuyv,
}

impl CameraFormat {
    /// The format of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Mjpg, Self::Yuyv].into_iter().find(|format| format.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Mjpg => "mjpg",
            Self::Yuyv => "yuyv",
        }
    }

    /// The formats a camera may offer: some call their JPEGs JPEG.
    fn codes(self) -> &'static [[u8; 4]] {
        const JPEGS: [[u8; 4]; 2] = [*b"MJPG", *b"JPEG"];
        const YUYV: [[u8; 4]; 1] = [*b"YUYV"];
        match self {
            Self::Mjpg => &JPEGS,
            Self::Yuyv => &YUYV,
        }
    }

    fn of_code(code: u32) -> Option<Self> {
        [Self::Mjpg, Self::Yuyv].into_iter().find(|format| format.codes().contains(&code.to_le_bytes()))
    }
}

/// Buffers that the camera fills in turn (count): one to fill, one to read, and some for a slow moment.
const BUFFERS: u32 = 4;

/// An open, streaming camera.
pub struct Camera {
    // Dropped in this order: the buffers are unmapped before the device is closed.
    buffers: Vec<Mapping>,
    device: File,
    format: CameraFormat,
    width: usize,
    height: usize,
    stride: usize,
}

impl Camera {
    pub fn open(spec: &CameraSpec) -> Result<Self, Lost> {
        let open = OpenOptions::new().read(true).write(true).custom_flags(libc_nonblock()).open(&spec.device);
        let device = open.map_err(|error| Lost::Failed(format!("cannot open {}: {error}", spec.device.display())))?;
        let fd = device.as_raw_fd();
        check_capabilities(fd, &spec.device)?;
        let offered = offered_formats(fd);
        let format = choose(&offered, spec)?;
        let found = set_format(fd, spec, format)?;
        set_rate(fd, spec);
        let buffers = map_buffers(fd)?;
        let camera = Self {
            buffers,
            device,
            format: found.0,
            width: found.1.width as usize,
            height: found.1.height as usize,
            stride: found.1.bytesperline as usize,
        };
        for index in 0..camera.buffers.len() {
            camera.queue(index as u32)?;
        }
        // SAFETY: the kernel reads one int.
        unsafe { vidioc_streamon(fd, &CAPTURE.cast_signed()) }.map_err(|problem| failed("start streaming", problem))?;
        log::info!("{}: {}×{} {}", spec.device.display(), camera.width, camera.height, camera.format.name());
        Ok(camera)
    }

    fn queue(&self, index: u32) -> Result<(), Lost> {
        let mut buffer = Buffer { index, type_: CAPTURE, memory: MMAP, ..Buffer::default() };
        // SAFETY: the kernel reads and writes one buffer description.
        unsafe { vidioc_qbuf(self.device.as_raw_fd(), &mut buffer) }
            .map(drop)
            .map_err(|problem| failed("give it a buffer", problem))
    }

    /// A copy of what is in a filled buffer.
    fn content(&self, buffer: &Buffer) -> Option<Content> {
        let bytes = self.buffers.get(buffer.index as usize)?.bytes();
        let used = bytes.get(..buffer.bytesused as usize).filter(|used| !used.is_empty())?;
        Some(match self.format {
            CameraFormat::Mjpg => Content::File(with_huffman_tables(used).into_owned()),
            CameraFormat::Yuyv => {
                Content::Yuyv { width: self.width, height: self.height, stride: self.stride, bytes: used.to_vec() }
            }
        })
    }
}

impl Source for Camera {
    fn next(&mut self, wait: &Wait) -> Result<Picture, Lost> {
        loop {
            wait.readable(self.device.as_fd())?;
            let mut buffer = Buffer { type_: CAPTURE, memory: MMAP, ..Buffer::default() };
            // SAFETY: the kernel reads and writes one buffer description.
            match unsafe { vidioc_dqbuf(self.device.as_raw_fd(), &mut buffer) } {
                Ok(_) => {}
                Err(Errno::EAGAIN | Errno::EINTR) => {
                    std::thread::yield_now();
                    continue;
                }
                Err(Errno::ENODEV) => return Err(Lost::Ended("the camera was unplugged".into())),
                Err(problem) => return Err(failed("take a frame", problem)),
            }
            let damaged = buffer.flags & FLAG_ERROR != 0;
            let content = self.content(&buffer).filter(|_| !damaged);
            self.queue(buffer.index)?;
            if let Some(content) = content {
                return Ok(Picture { name: None, content });
            }
        }
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        // SAFETY: the kernel reads one int.
        let _ = unsafe { vidioc_streamoff(self.device.as_raw_fd(), &CAPTURE.cast_signed()) };
    }
}

fn failed(what: &str, problem: Errno) -> Lost {
    Lost::Failed(format!("the camera cannot {what}: {}", problem.desc()))
}

fn check_capabilities(fd: RawFd, path: &Path) -> Result<(), Lost> {
    let mut found = Capability::default();
    // SAFETY: the kernel writes one capability description.
    unsafe { vidioc_querycap(fd, &mut found) }
        .map_err(|_| Lost::Failed(format!("{} is no video device", path.display())))?;
    let own = if found.capabilities & DEVICE_CAPABILITIES != 0 { found.device_caps } else { found.capabilities };
    if own & CAN_CAPTURE == 0 || own & CAN_STREAM == 0 {
        let advice = "a camera has several device files, and not all give frames; try the next";
        return Err(Lost::Failed(format!("{} gives no frames; {advice}", path.display())));
    }
    Ok(())
}

/// The pixel formats of the camera, as their codes.
fn offered_formats(fd: RawFd) -> Vec<u32> {
    let mut offered = Vec::new();
    for index in 0..64 {
        let mut found = FormatDescription { index, type_: CAPTURE, ..FormatDescription::default() };
        // SAFETY: the kernel reads and writes one format description.
        if unsafe { vidioc_enum_fmt(fd, &mut found) }.is_err() {
            break;
        }
        offered.push(found.pixelformat);
    }
    offered
}

/// The code of the format to ask for: the one wanted, else MJPG before YUYV.
fn choose(offered: &[u32], spec: &CameraSpec) -> Result<u32, Lost> {
    let wanted = [CameraFormat::Mjpg, CameraFormat::Yuyv];
    let mut wanted = wanted.iter().filter(|&&format| spec.format.is_none_or(|only| only == format));
    wanted
        .find_map(|format| offered.iter().copied().find(|&code| CameraFormat::of_code(code) == Some(*format)))
        .ok_or_else(|| {
            let expected = spec.format.map_or("MJPG or YUYV".into(), |format| format.name().to_uppercase());
            let names: Vec<String> =
                offered.iter().map(|code| String::from_utf8_lossy(&code.to_le_bytes()).into_owned()).collect();
            let advice = "use a command such as ffmpeg as the source, which can convert";
            Lost::Failed(format!("the camera offers {}, expected {expected}; {advice}", names.join(", ")))
        })
}

fn set_format(fd: RawFd, spec: &CameraSpec, code: u32) -> Result<(CameraFormat, PixelFormat), Lost> {
    let mut format = Format { type_: CAPTURE, union: FormatUnion { raw: [0; 200] } };
    // SAFETY: the kernel reads and writes one format.
    unsafe { vidioc_g_fmt(fd, &mut format) }.map_err(|problem| failed("tell its format", problem))?;
    // SAFETY: for a capture type this member is the one in use.
    let mut pixels = unsafe { format.union.pixels };
    pixels.pixelformat = code;
    if let Some((width, height)) = spec.size {
        (pixels.width, pixels.height) = (width, height);
    }
    (pixels.bytesperline, pixels.sizeimage) = (0, 0);
    format.union.pixels = pixels;
    // SAFETY: as above.
    unsafe { vidioc_s_fmt(fd, &mut format) }.map_err(|problem| failed("be set to that format", problem))?;
    // SAFETY: as above.
    let found = unsafe { format.union.pixels };
    let name = CameraFormat::of_code(found.pixelformat);
    let sides = 1..=CAMERA_SIDE_MAX;
    let Some(name) = name.filter(|_| sides.contains(&found.width) && sides.contains(&found.height)) else {
        let code = String::from_utf8_lossy(&found.pixelformat.to_le_bytes()).into_owned();
        return Err(Lost::Failed(format!("the camera insists on {}×{} {code}", found.width, found.height)));
    };
    if spec.size.is_some_and(|size| size != (found.width, found.height)) {
        log::warn!("{} gives {}×{} instead of the size asked for", spec.device.display(), found.width, found.height);
    }
    Ok((name, found))
}

/// Asks for a rate; a camera that cannot be asked keeps its own.
fn set_rate(fd: RawFd, spec: &CameraSpec) {
    let Some(rate) = spec.rate else { return };
    let mut parameters = StreamParameters { type_: CAPTURE, raw: [0; 200] };
    // capability, capturemode, then the time of a frame as a fraction of a second.
    parameters.raw[8..12].copy_from_slice(&1_u32.to_ne_bytes());
    parameters.raw[12..16].copy_from_slice(&rate.to_ne_bytes());
    // SAFETY: the kernel reads and writes one set of parameters.
    if let Err(problem) = unsafe { vidioc_s_parm(fd, &mut parameters) } {
        log::warn!("{} keeps its own frame rate: {}", spec.device.display(), problem.desc());
    }
}

fn map_buffers(fd: RawFd) -> Result<Vec<Mapping>, Lost> {
    let mut request = BufferRequest { count: BUFFERS, type_: CAPTURE, memory: MMAP, ..BufferRequest::default() };
    // SAFETY: the kernel reads and writes one request.
    unsafe { vidioc_reqbufs(fd, &mut request) }.map_err(|problem| match problem {
        Errno::EBUSY => Lost::Failed("another program uses the camera".into()),
        problem => failed("give buffers", problem),
    })?;
    (0..request.count.min(32))
        .map(|index| {
            let mut buffer = Buffer { index, type_: CAPTURE, memory: MMAP, ..Buffer::default() };
            // SAFETY: the kernel reads and writes one buffer description.
            unsafe { vidioc_querybuf(fd, &mut buffer) }.map_err(|problem| failed("describe a buffer", problem))?;
            // SAFETY: for mapped memory this member is the one in use.
            let offset = unsafe { buffer.place.offset };
            Mapping::new(fd, buffer.length as usize, offset)
        })
        .collect()
}

/// A buffer of the camera in this program's memory.
struct Mapping {
    start: NonNull<std::ffi::c_void>,
    length: usize,
}

// SAFETY: the mapping is owned, and memory knows no thread.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(fd: RawFd, length: usize, offset: u32) -> Result<Self, Lost> {
        let bounded = std::num::NonZeroUsize::new(length).filter(|length| length.get() <= 4 * FRAME_BYTES_MAX);
        let size = bounded.ok_or_else(|| Lost::Failed(format!("the camera has a buffer of {length} bytes")))?;
        // SAFETY: the caller holds the device open; a fresh shared mapping aliases nothing of this program.
        let start = unsafe {
            let device = std::os::fd::BorrowedFd::borrow_raw(fd);
            mmap(None, size, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, device, offset.into())
        };
        Ok(Self { start: start.map_err(|problem| failed("map a buffer", problem))?, length })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping has this length and lives as long as `self`; the camera fills a buffer only while it has
        // it, and the caller reads one that was taken from it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and unmapped once.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}

fn libc_nonblock() -> i32 {
    nix::fcntl::OFlag::O_NONBLOCK.bits()
}

/// `V4L2_BUF_TYPE_VIDEO_CAPTURE`.
const CAPTURE: u32 = 1;
/// `V4L2_MEMORY_MMAP`.
const MMAP: u32 = 1;
/// `V4L2_BUF_FLAG_ERROR`.
const FLAG_ERROR: u32 = 0x40;
/// `V4L2_CAP_VIDEO_CAPTURE`.
const CAN_CAPTURE: u32 = 1;
/// `V4L2_CAP_STREAMING`.
const CAN_STREAM: u32 = 0x0400_0000;
/// `V4L2_CAP_DEVICE_CAPS`.
const DEVICE_CAPABILITIES: u32 = 0x8000_0000;

/// `struct v4l2_capability`.
#[repr(C)]
#[derive(Default)]
struct Capability {
    driver: [u8; 16],
    card: [u8; 32],
    bus_info: [u8; 32],
    version: u32,
    capabilities: u32,
    device_caps: u32,
    reserved: [u32; 3],
}

/// `struct v4l2_fmtdesc`.
#[repr(C)]
#[derive(Default)]
struct FormatDescription {
    index: u32,
    type_: u32,
    flags: u32,
    description: [u8; 32],
    pixelformat: u32,
    mbus_code: u32,
    reserved: [u32; 3],
}

/// `struct v4l2_pix_format`.
#[repr(C)]
#[derive(Clone, Copy)]
struct PixelFormat {
    width: u32,
    height: u32,
    pixelformat: u32,
    field: u32,
    bytesperline: u32,
    sizeimage: u32,
    colorspace: u32,
    priv_: u32,
    flags: u32,
    encoding: u32,
    quantization: u32,
    xfer_func: u32,
}

/// `struct v4l2_format`.
#[repr(C)]
struct Format {
    type_: u32,
    union: FormatUnion,
}

#[repr(C)]
union FormatUnion {
    pixels: PixelFormat,
    raw: [u8; 200],
    /// Another member, `struct v4l2_window`, has pointers.
    pointer: *const u8,
}

/// `struct v4l2_streamparm`.
#[repr(C)]
struct StreamParameters {
    type_: u32,
    raw: [u8; 200],
}

/// `struct v4l2_requestbuffers`.
#[repr(C)]
#[derive(Default)]
struct BufferRequest {
    count: u32,
    type_: u32,
    memory: u32,
    capabilities: u32,
    flags: u8,
    reserved: [u8; 3],
}

/// `struct v4l2_buffer`.
#[repr(C)]
struct Buffer {
    index: u32,
    type_: u32,
    bytesused: u32,
    flags: u32,
    field: u32,
    timestamp: nix::libc::timeval,
    timecode: [u32; 4],
    sequence: u32,
    memory: u32,
    place: Place,
    length: u32,
    reserved2: u32,
    request_fd: i32,
}

#[repr(C)]
union Place {
    offset: u32,
    pointer: *const u8,
}

impl Default for Buffer {
    fn default() -> Self {
        // SAFETY: the kernel's structure is plain numbers, and a null pointer that nobody follows.
        unsafe { std::mem::zeroed() }
    }
}

nix::ioctl_read!(vidioc_querycap, b'V', 0, Capability);
nix::ioctl_readwrite!(vidioc_enum_fmt, b'V', 2, FormatDescription);
nix::ioctl_readwrite!(vidioc_g_fmt, b'V', 4, Format);
nix::ioctl_readwrite!(vidioc_s_fmt, b'V', 5, Format);
nix::ioctl_readwrite!(vidioc_reqbufs, b'V', 8, BufferRequest);
nix::ioctl_readwrite!(vidioc_querybuf, b'V', 9, Buffer);
nix::ioctl_readwrite!(vidioc_qbuf, b'V', 15, Buffer);
nix::ioctl_readwrite!(vidioc_dqbuf, b'V', 17, Buffer);
nix::ioctl_write_ptr!(vidioc_streamon, b'V', 18, i32);
nix::ioctl_write_ptr!(vidioc_streamoff, b'V', 19, i32);
nix::ioctl_readwrite!(vidioc_s_parm, b'V', 22, StreamParameters);
