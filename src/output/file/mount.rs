//! Whether a path is itself a mount point, as `subPath` and single-file bind mounts make it.

use std::{
    ffi::OsString,
    fs::File,
    io::Read,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
};

/// What most lists take: files of /proc do not report their length, and a short buffer takes a call for each piece.
const ROOM: usize = 16 << 10;

/// Whether something is mounted on the very path; `path` has to be free of symbolic links.
///
/// Where the kernel's list cannot be read, nothing is known to be mounted: the rename shows it.
pub(super) fn is_mount_point(path: &Path) -> bool {
    let mut list = Vec::with_capacity(ROOM);
    let read = File::open("/proc/self/mountinfo").and_then(|mut file| file.read_to_end(&mut list));
    read.is_ok() && is_listed(&list, path)
}

/// `list` has the form of proc_pid_mountinfo(5): the fifth field is the mount point.
fn is_listed(list: &[u8], path: &Path) -> bool {
    list.split(|&b| b == b'\n')
        .filter_map(|line| line.split(|&b| b == b' ').nth(4))
        .any(|field| unescape(field).as_bytes() == path.as_os_str().as_bytes())
}

/// Undoes the octal escapes of space, tab, line feed and backslash.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let code = after.first_chunk::<3>().filter(|_| first == b'\\').and_then(octal);
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(bytes)
}

fn octal(digits: &[u8; 3]) -> Option<u8> {
    u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fifth_field_is_unescaped_and_compared_whole() {
        let list = b"22 27 0:21 / /proc rw,nosuid shared:5 - proc proc rw\n\
            36 35 8:1 /a/config.json /out\\040dir/co\\134nfig.json rw - ext4 /dev/sda1 rw\n\
            37 35 8:1 / /deep/\\0 rw - ext4 /dev/sda1 rw\n";
        assert!(is_listed(list, Path::new("/proc")));
        assert!(is_listed(list, Path::new("/out dir/co\\nfig.json")));
        assert!(is_listed(list, Path::new("/deep/\\0")));
        for path in ["/out dir", "/a/config.json", "/pro", "/", "8:1", ""] {
            assert!(!is_listed(list, Path::new(path)), "{path}");
        }
    }
}
