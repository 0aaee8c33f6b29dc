//! What differs between the machines that the image is made for.

use std::path::Path;

/// A kind of machine, in Debian's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// A PC with UEFI.
    Amd64,
    /// QEMU's `virt`, with UEFI: as servers and newer boards are.
    Arm64,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// As Debian, and the image's file, call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Where the firmware looks for a kernel on the EFI system partition.
    pub(super) fn kernel(self) -> &'static str {
        match self {
            Self::Amd64 => "::EFI/BOOT/BOOTX64.EFI",
            Self::Arm64 => "::EFI/BOOT/BOOTAA64.EFI",
        }
    }

    /// Variables of a firmware that has never seen a key.
    pub(super) fn no_keys(self) -> &'static Path {
        Path::new(match self {
            Self::Amd64 => "/usr/share/OVMF/OVMF_VARS_4M.fd",
            Self::Arm64 => "/usr/share/AAVMF/AAVMF_VARS.fd",
        })
    }

    /// Firmware that looks at signatures. On a PC it keeps its variables to itself, without which Secure Boot is worth nothing; QEMU's
    /// `virt` has no place that the guest's kernel cannot write to.
    pub(super) fn firmware(self) -> &'static str {
        match self {
            Self::Amd64 => "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
            Self::Arm64 => "/usr/share/AAVMF/AAVMF_CODE.fd",
        }
    }

    pub(super) fn qemu(self) -> &'static str {
        match self {
            Self::Amd64 => "qemu-system-x86_64",
            Self::Arm64 => "qemu-system-aarch64",
        }
    }

    /// The machine, as QEMU's arguments.
    pub(super) fn machine(self) -> &'static str {
        match self {
            Self::Amd64 => "-M q35,smm=on -global driver=cfi.pflash01,property=secure,value=on -accel tcg -cpu max",
            Self::Arm64 => "-M virt -accel tcg -cpu cortex-a72",
        }
    }

    /// QEMU's device that is the chip's place on the machine.
    pub(super) fn chip(self) -> &'static str {
        match self {
            Self::Amd64 => "tpm-crb",
            Self::Arm64 => "tpm-tis-device",
        }
    }

    /// QEMU's device that is the shell's line, of the character device `shell`. `virt` has one serial port for its guest.
    pub(super) fn shell(self) -> &'static str {
        match self {
            Self::Amd64 => "-serial chardev:shell",
            Self::Arm64 => "-device virtio-serial-pci -device virtconsole,chardev=shell",
        }
    }
}
