//! The kernel's interface to cameras (`linux/videodev2.h`), with calls that are safe.
//!
//! A test runs them against the kernel's own header.

mod abi;

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

pub(crate) use abi::{Capability, PixelFormat};

use crate::limits::FRAME_BYTES_MAX;
use abi::*;

/// An open video device.
pub(crate) struct Device(File);

impl Device {
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        // Not blocking: a thread that waits in `VIDIOC_DQBUF` could not be stopped. The wait is `poll`'s.
        OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map(Self)
    }

    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub(crate) fn capability(&self) -> nix::Result<Capability> {
        let mut found = Capability::default();
        // SAFETY: the kernel writes one capability description.
        unsafe { vidioc_querycap(self.fd(), &mut found) }?;
        Ok(found)
    }

    /// Codes of the pixel formats that the device offers.
    pub(crate) fn formats(&self) -> Vec<u32> {
        // A list ends with an error (EINVAL); the bound is for a driver that never gives one.
        let described = (0..64).map_while(|index| {
            let mut found = FormatDescription { index, type_: CAPTURE, ..FormatDescription::default() };
            // SAFETY: the kernel reads and writes one format description.
            unsafe { vidioc_enum_fmt(self.fd(), &mut found) }.ok()?;
            Some(found.pixelformat)
        });
        described.collect()
    }

    /// Sizes that the device offers in a format, columns and rows (pixels); of a range the largest.
    pub(crate) fn sizes(&self, format: u32) -> Vec<(u32, u32)> {
        let mut sizes = Vec::new();
        for index in 0..64 {
            let mut found = FrameSize { index, pixel_format: format, ..FrameSize::default() };
            // SAFETY: the kernel reads and writes one description of a size.
            if unsafe { vidioc_enum_framesizes(self.fd(), &mut found) }.is_err() {
                break;
            }
            if found.type_ != DISCRETE {
                // Smallest, largest and step of the columns, then of the rows.
                sizes.push((found.sizes[1], found.sizes[4]));
                break;
            }
            sizes.push((found.sizes[0], found.sizes[1]));
        }
        sizes
    }

    /// The format that the device is set to.
    pub(crate) fn format(&self) -> nix::Result<PixelFormat> {
        let mut format = Format { type_: CAPTURE, union: FormatUnion { raw: [0; 200] } };
        // SAFETY: the kernel reads and writes one format.
        unsafe { vidioc_g_fmt(self.fd(), &mut format) }?;
        // SAFETY: the whole union was written, and whatever bytes are there are a `PixelFormat`, which is numbers alone.
        Ok(unsafe { format.union.pixels })
    }

    /// Sets a format, and returns the one that the driver chose for it.
    pub(crate) fn set_format(&self, pixels: PixelFormat) -> nix::Result<PixelFormat> {
        let mut format = Format { type_: CAPTURE, union: FormatUnion { raw: [0; 200] } };
        format.union.pixels = pixels;
        // SAFETY: the kernel reads and writes one format.
        unsafe { vidioc_s_fmt(self.fd(), &mut format) }?;
        // SAFETY: the whole union was written, and whatever bytes are there are a `PixelFormat`, which is numbers alone.
        Ok(unsafe { format.union.pixels })
    }

    /// Asks for a rate (frames a second).
    pub(crate) fn set_rate(&self, rate: u32) -> nix::Result<()> {
        let mut parameters = StreamParameters { type_: CAPTURE, raw: [0; 200] };
        // capability, capturemode, then the time of a frame as a fraction of a second.
        parameters.raw[8..12].copy_from_slice(&1_u32.to_ne_bytes());
        parameters.raw[12..16].copy_from_slice(&rate.to_ne_bytes());
        // SAFETY: the kernel reads and writes one set of parameters.
        unsafe { vidioc_s_parm(self.fd(), &mut parameters) }.map(drop)
    }

    /// Asks for buffers, and returns their number.
    pub(crate) fn request_buffers(&self, count: u32) -> nix::Result<u32> {
        let mut request = BufferRequest { count, type_: CAPTURE, memory: MMAP, ..BufferRequest::default() };
        // SAFETY: the kernel reads and writes one request.
        unsafe { vidioc_reqbufs(self.fd(), &mut request) }?;
        Ok(request.count)
    }

    fn map_buffer(&self, index: u32) -> nix::Result<Mapping> {
        let mut buffer = Buffer::numbered(index);
        // SAFETY: the kernel reads and writes one buffer description.
        unsafe { vidioc_querybuf(self.fd(), &mut buffer) }?;
        // SAFETY: the kernel has written the description of a buffer of the kind `MMAP`, whose place is an offset; and
        // whatever bytes are there are a u32.
        let offset = unsafe { buffer.place.offset };
        Mapping::new(&self.0, buffer.length as usize, offset)
    }

    fn queue(&self, index: u32) -> nix::Result<()> {
        // SAFETY: the kernel reads and writes one buffer description.
        unsafe { vidioc_qbuf(self.fd(), &mut Buffer::numbered(index)) }.map(drop)
    }

    fn dequeue(&self) -> nix::Result<Buffer> {
        let mut buffer = Buffer::numbered(0);
        // SAFETY: the kernel reads and writes one buffer description.
        unsafe { vidioc_dqbuf(self.fd(), &mut buffer) }?;
        Ok(buffer)
    }

    fn start(&self) -> nix::Result<()> {
        // SAFETY: the kernel reads one int.
        unsafe { vidioc_streamon(self.fd(), &CAPTURE.cast_signed()) }.map(drop)
    }

    fn stop(&self) -> nix::Result<()> {
        // SAFETY: the kernel reads one int.
        unsafe { vidioc_streamoff(self.fd(), &CAPTURE.cast_signed()) }.map(drop)
    }
}

impl Capability {
    /// Capabilities of this device file, which may be fewer than those of the whole camera.
    pub(crate) fn own(&self) -> u32 {
        // Old drivers do not fill `device_caps`; the flag says whether it counts.
        if self.capabilities & DEVICE_CAPABILITIES != 0 { self.device_caps } else { self.capabilities }
    }

    /// True if it gives frames.
    pub(crate) fn gives_frames(&self) -> bool {
        self.own() & CAN_CAPTURE != 0 && self.own() & CAN_STREAM != 0
    }

    /// Name of the camera.
    pub(crate) fn name(&self) -> String {
        let end = self.card.iter().position(|&byte| byte == 0).unwrap_or(self.card.len());
        String::from_utf8_lossy(&self.card[..end]).into_owned()
    }
}

/// A format's code as its four characters.
pub(crate) fn code_name(code: u32) -> String {
    // Short codes are filled up with spaces, such as `Y16 `.
    String::from_utf8_lossy(&code.to_le_bytes()).trim().to_string()
}

fn mapped_at(offset: u32) -> nix::libc::off_t {
    // On 32-bit systems the type is signed and as wide: the bits are what the kernel gave.
    #[allow(clippy::cast_possible_wrap, clippy::unnecessary_cast)]
    {
        offset as nix::libc::off_t
    }
}

/// A device with mapped buffers, which the camera fills in turn.
///
/// A buffer is with the camera, which writes into it, or with this program as the one [`FilledBuffer`] there can be.
pub(crate) struct Buffers {
    // Dropped in this order: the buffers are unmapped before the device is closed.
    mappings: Vec<Mapping>,
    device: Device,
}

impl Buffers {
    /// The first `count` buffers of a device, mapped; `EFBIG` if one is larger than any frame may be.
    pub(crate) fn map(device: Device, count: u32) -> nix::Result<Self> {
        let mappings = (0..count).map(|index| device.map_buffer(index)).collect::<nix::Result<_>>()?;
        Ok(Self { mappings, device })
    }

    /// Device file, to wait for frames on.
    pub(crate) fn file(&self) -> &File {
        &self.device.0
    }

    /// Gives all buffers to the camera.
    pub(crate) fn queue_all(&mut self) -> nix::Result<()> {
        (0..self.mappings.len()).try_for_each(|index| self.device.queue(index as u32))
    }

    /// Starts streaming.
    pub(crate) fn start(&mut self) -> nix::Result<()> {
        self.device.start()
    }

    /// Takes a filled buffer from the camera.
    pub(crate) fn dequeue(&mut self) -> nix::Result<FilledBuffer<'_>> {
        let buffer = self.device.dequeue()?;
        Ok(FilledBuffer { buffers: self, buffer })
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // The camera has to be done with the buffers before they are unmapped.
        let _ = self.device.stop();
    }
}

/// A buffer that the camera has filled and does not write into. Dropped, it goes back to the camera.
pub(crate) struct FilledBuffer<'a> {
    buffers: &'a mut Buffers,
    buffer: Buffer,
}

impl FilledBuffer<'_> {
    /// The bytes of the frame; none if the kernel names a buffer or a length that there is not, or calls it damaged.
    pub(crate) fn frame(&self) -> Option<&[u8]> {
        let mapping = self.buffers.mappings.get(self.buffer.index as usize)?;
        let used = self.buffer.bytesused as usize;
        // The numbers come from a driver, and a slice is made of them: what is larger than the mapping must not pass.
        if used == 0 || used > mapping.length || self.buffer.flags & FLAG_ERROR != 0 {
            return None;
        }
        // SAFETY: the mapping is `mapping.length` bytes long, of which these are the first, and lives as long as the
        // borrow of `self.buffers`. Nothing writes into it meanwhile: the kernel has handed this buffer out, and leaves it
        // alone until it is queued; only methods of `Buffers` that borrow it mutably and the end of this value queue it.
        Some(unsafe { std::slice::from_raw_parts(mapping.start.as_ptr().cast(), used) })
    }

    /// Gives the buffer back to the camera.
    pub(crate) fn give_back(self) -> nix::Result<()> {
        let given = self.buffers.device.queue(self.buffer.index);
        // Dropping it would queue it once more.
        std::mem::forget(self);
        given
    }
}

impl Drop for FilledBuffer<'_> {
    fn drop(&mut self) {
        let _ = self.buffers.device.queue(self.buffer.index);
    }
}

/// A buffer of the camera in this program's memory.
struct Mapping {
    start: NonNull<std::ffi::c_void>,
    length: usize,
}

impl Mapping {
    fn new(device: &File, length: usize, offset: u32) -> nix::Result<Self> {
        // `FRAME_BYTES_MAX` bounds JPEGs. A raw frame of 4096×4096 pixels takes 32 MiB, and a driver may reserve more
        // than it uses.
        let bounded = std::num::NonZeroUsize::new(length).filter(|length| length.get() <= 4 * FRAME_BYTES_MAX);
        let size = bounded.ok_or(Errno::EFBIG)?;
        // SAFETY: without a wished address the kernel chooses one where nothing of this program is.
        let start = unsafe { mmap(None, size, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, device, mapped_at(offset)) }?;
        Ok(Self { start, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `new` mapped this range, this value alone owns it, and no slice of it outlives its owner.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}

impl Buffer {
    fn numbered(index: u32) -> Self {
        // SAFETY: the structure is numbers and a union of a number and a raw pointer; all of them may be zero.
        let empty: Self = unsafe { std::mem::zeroed() };
        Self { index, type_: CAPTURE, memory: MMAP, ..empty }
    }
}
