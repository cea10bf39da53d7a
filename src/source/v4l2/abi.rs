//! Structures, constants and calls of `linux/videodev2.h`, field for field.

/// `V4L2_BUF_TYPE_VIDEO_CAPTURE`.
pub(super) const CAPTURE: u32 = 1;
/// `V4L2_FRMSIZE_TYPE_DISCRETE`; the others are ranges.
pub(super) const DISCRETE: u32 = 1;
/// `V4L2_MEMORY_MMAP`.
pub(super) const MMAP: u32 = 1;
/// `V4L2_BUF_FLAG_ERROR`.
pub(super) const FLAG_ERROR: u32 = 0x40;
/// `V4L2_CAP_VIDEO_CAPTURE`.
pub(super) const CAN_CAPTURE: u32 = 1;
/// `V4L2_CAP_STREAMING`.
pub(super) const CAN_STREAM: u32 = 0x0400_0000;
/// `V4L2_CAP_DEVICE_CAPS`.
pub(super) const DEVICE_CAPABILITIES: u32 = 0x8000_0000;

/// `struct v4l2_capability`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct Capability {
    pub(super) driver: [u8; 16],
    pub(super) card: [u8; 32],
    pub(super) bus_info: [u8; 32],
    pub(super) version: u32,
    pub(super) capabilities: u32,
    pub(super) device_caps: u32,
    pub(super) reserved: [u32; 3],
}

/// `struct v4l2_fmtdesc`.
#[repr(C)]
#[derive(Default)]
pub(super) struct FormatDescription {
    pub(super) index: u32,
    pub(super) type_: u32,
    pub(super) flags: u32,
    pub(super) description: [u8; 32],
    pub(super) pixelformat: u32,
    pub(super) mbus_code: u32,
    pub(super) reserved: [u32; 3],
}

/// `struct v4l2_pix_format`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct PixelFormat {
    pub width: u32,
    pub height: u32,
    pub pixelformat: u32,
    pub(super) field: u32,
    pub bytesperline: u32,
    pub sizeimage: u32,
    pub(super) colorspace: u32,
    pub(super) priv_: u32,
    pub(super) flags: u32,
    pub(super) encoding: u32,
    pub(super) quantization: u32,
    pub(super) xfer_func: u32,
}

/// `struct v4l2_format`.
#[repr(C)]
pub(super) struct Format {
    pub(super) type_: u32,
    pub(super) union: FormatUnion,
}

#[repr(C)]
pub(super) union FormatUnion {
    pub(super) pixels: PixelFormat,
    pub(super) raw: [u8; 200],
    /// Here for its alignment: another member, `struct v4l2_window`, has pointers.
    pub(super) pointer: *const u8,
}

/// `struct v4l2_streamparm`.
#[repr(C)]
pub(super) struct StreamParameters {
    pub(super) type_: u32,
    pub(super) raw: [u8; 200],
}

/// `struct v4l2_requestbuffers`.
#[repr(C)]
#[derive(Default)]
pub(super) struct BufferRequest {
    pub(super) count: u32,
    pub(super) type_: u32,
    pub(super) memory: u32,
    pub(super) capabilities: u32,
    pub(super) flags: u8,
    pub(super) reserved: [u8; 3],
}

/// `struct v4l2_frmsizeenum`: one size, or the smallest, largest and step of a range, columns and rows in turn.
#[repr(C)]
#[derive(Default)]
pub(super) struct FrameSize {
    pub(super) index: u32,
    pub(super) pixel_format: u32,
    pub(super) type_: u32,
    pub(super) sizes: [u32; 6],
    pub(super) reserved: [u32; 2],
}

/// `struct v4l2_buffer`.
#[repr(C)]
pub(super) struct Buffer {
    pub(super) index: u32,
    pub(super) type_: u32,
    pub(super) bytesused: u32,
    pub(super) flags: u32,
    pub(super) field: u32,
    pub(super) timestamp: nix::libc::timeval,
    pub(super) timecode: [u32; 4],
    pub(super) sequence: u32,
    pub(super) memory: u32,
    pub(super) place: Place,
    pub(super) length: u32,
    pub(super) reserved2: u32,
    pub(super) request_fd: i32,
}

#[repr(C)]
pub(super) union Place {
    pub(super) offset: u32,
    pub(super) pointer: *const u8,
}

// The size of the structure is part of a call's number: with a field too many or too few the kernel answers ENOTTY.
nix::ioctl_read!(vidioc_querycap, b'V', 0, Capability);
nix::ioctl_readwrite!(vidioc_enum_fmt, b'V', 2, FormatDescription);
nix::ioctl_readwrite!(vidioc_g_fmt, b'V', 4, Format);
nix::ioctl_readwrite!(vidioc_s_fmt, b'V', 5, Format);
nix::ioctl_readwrite!(vidioc_reqbufs, b'V', 8, BufferRequest);
nix::ioctl_readwrite!(vidioc_querybuf, b'V', 9, Buffer);
nix::ioctl_readwrite!(vidioc_qbuf, b'V', 15, Buffer);
nix::ioctl_readwrite!(vidioc_dqbuf, b'V', 17, Buffer);
nix::ioctl_readwrite!(vidioc_enum_framesizes, b'V', 74, FrameSize);
nix::ioctl_write_ptr!(vidioc_streamon, b'V', 18, i32);
nix::ioctl_write_ptr!(vidioc_streamoff, b'V', 19, i32);
nix::ioctl_readwrite!(vidioc_s_parm, b'V', 22, StreamParameters);
