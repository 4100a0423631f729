#!/usr/bin/env bash
# A statically linked program on a processor that Bochs emulates: what qemu-user does for the processors that it knows.
#
#     native/tests/bochs.sh PROCESSOR[,-FEATURE] PROGRAM [ARGUMENT...]
#     native/tests/bochs.sh corei7_icelake_u,-avx512vbmi build/checks/static/native_checks --quick kernels
#
# Bochs is a whole machine, so a small Linux boots in it: a disc with Debian's kernel and a memory disk of the program,
# whose output and exit status come back through the serial port. `bochs --help cpu` lists the processors.
#
# Debian 13's Bochs 3.0, because 2.7 does not round ties of vcvtps2ph to even. BOCHS names another program, and BXSHARE
# the folder of its ROMs. Booting takes some 20 s, then 30 to 50 million instructions are executed a second.
set -euo pipefail

limit=7200  # seconds; what hangs is stopped then
bochs=${BOCHS:-bochs}
share=${BXSHARE:-/usr/share/bochs}
root=build/checks/bochs

need() {  # command or file, Debian's package
  command -v "$1" >/dev/null || [ -e "$1" ] || { echo "$1 was not found (Debian: apt install $2)" >&2; exit 1; }
}
need "$bochs" "bochs bochs-term"
need "$share/BIOS-bochs-latest" "bochs bochs-term"
need xorriso xorriso
need cpio cpio
need busybox busybox-static
need /usr/lib/ISOLINUX/isolinux.bin isolinux
need /usr/lib/syslinux/modules/bios/ldlinux.c32 syslinux-common
version=$("$bochs" --help 2>&1 | sed -n 's/.*Bochs x86 Emulator \([0-9]*\).*/\1/p')
[ "${version:-0}" -ge 3 ] || { echo "$bochs is older than 3.0 (Debian 13); BOCHS=... names another" >&2; exit 1; }

IFS=, read -r model features <<<"$1"
program=$2
shift 2

mkdir -p "$root"
if [ ! -e "$root/kernel" ]; then  # Debian's smallest, unpacked only
  need apt-get apt
  package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p' | head -1)
  [ -n "$package" ] || { echo "linux-image-cloud-amd64 is unknown here: apt-get update" >&2; exit 1; }
  (cd "$root" && apt-get -qq download "$package") 2>"$root/apt.log" || { cat "$root/apt.log" >&2; exit 1; }
  dpkg-deb --fsys-tarfile "$root/$package"_*.deb | tar -x -O --wildcards './boot/vmlinuz-*' >"$root/kernel.part"
  mv "$root/kernel.part" "$root/kernel"
  rm "$root/$package"_*.deb
fi

run=$(mktemp -d "$root/run.XXXXXX")
machine=
trap '[ -z "$machine" ] || kill -9 "$machine" 2>/dev/null || true; rm -rf "$run"' EXIT
trap 'exit 130' INT TERM
mkdir -p "$run/memory/proc" "$run/disc"
cp "$program" "$run/memory/program"
cp "$(command -v busybox)" "$run/memory/busybox"
cat >"$run/memory/init" <<'END'
#!/busybox sh
/busybox mount -t proc proc /proc
/program "$@" 2>&1
echo "exit status $?"
/busybox sleep 1  # until the serial port has sent it
/busybox poweroff -f
END
chmod +x "$run/memory/init"
(cd "$run/memory" && find . | cpio -o -H newc --quiet) >"$run/disc/memory"
cp "$root/kernel" /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$run/disc"
# fsrm: Linux 6.1's memmove is wrong with it when the processor has no fast rep movsb besides.
cat >"$run/disc/isolinux.cfg" <<END
default linux
label linux
  kernel kernel
  append initrd=memory rdinit=/init console=ttyS0 loglevel=1 mitigations=off clearcpuid=fsrm -- $*
END
xorriso -as mkisofs -quiet -o "$run/disc.iso" -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 \
  -boot-info-table "$run/disc" 2>"$run/disc.log" || { cat "$run/disc.log" >&2; exit 1; }

vga=$share/VGABIOS-lgpl-latest
[ -e "$vga" ] || vga=$vga.bin
cat >"$run/bochsrc" <<END
display_library: term
cpu: model=$model, ips=100000000, ignore_bad_msrs=1${features:+, exclude_features="${features//-/}"}
clock: sync=none
memory: guest=512, host=512
romimage: file=$share/BIOS-bochs-latest
vgaromimage: file=$vga
ata0-master: type=cdrom, path=$run/disc.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$run/serial
panic: action=fatal
log: $run/log
END
touch "$run/serial" "$run/log"
# Debian's Bochs starts in its debugger, which reads one c, continue.
TERM=vt100 "$bochs" -q -f "$run/bochsrc" <<<c >"$run/screen" 2>&1 &
machine=$!
timeout "$limit" tail -c +1 -s 1 -f --pid="$machine" "$run/serial" |
  sed -u 's/\r$//; /^\[ *[0-9.]*\] /d; /^exit status /d' || true
kill -9 "$machine" 2>/dev/null || true  # it is still there when the time is over
wait "$machine" || true                 # powering off is an error to Bochs

status=$(tr -d '\r' <"$run/serial" | sed -n 's/^exit status \([0-9]*\)$/\1/p')
if [ -z "$status" ]; then
  echo "Linux in Bochs did not come to its end (limit: $limit s); the last lines of its serial port and of Bochs:" >&2
  tail -n 20 "$run/serial" >&2
  grep -hs '>>PANIC<<' "$run/screen" "$run/log" >&2 || tail -n 5 "$run/log" >&2
  exit 1
fi
exit "$status"
