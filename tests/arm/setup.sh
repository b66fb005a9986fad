#!/bin/sh
# An ARM64 Python with sotol's dependencies that runs on an x86-64 Debian, in the folder $1: call $1/python, with
# sotol's sources in PYTHONPATH.
#
# QEMU translates its instructions (user mode: Linux itself is the host's). Nothing is installed into the system: apt
# resolves and downloads Debian's ARM64 packages into the folder, with lists of its own, and they are only unpacked.
# $2 is a Python with pip, which fetches the ARM64 wheels.
set -eu
mkdir -p "$1"
folder=$(cd "$1" && pwd)
source=$(cd "$(dirname "$0")/../.." && pwd)
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null || [ "$(uname -m)" != x86_64 ]; then
    echo "make test-arm needs apt-get and dpkg-deb of Debian 12 or newer, on x86-64" >&2
    exit 1
fi

rm -rf "$folder/root" "$folder/site"
mkdir -p "$folder/apt/lists/partial" "$folder/apt/archives/partial" "$folder/root"
: >"$folder/apt/status" # as if no package were installed, so that all that Python needs is downloaded
cat >"$folder/apt.conf" <<END
Dir::State::lists "$folder/apt/lists";
Dir::State::status "$folder/apt/status";
Dir::Cache "$folder/apt";
APT::Architecture "arm64";
APT::Architectures { "arm64"; "amd64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
END
export APT_CONFIG="$folder/apt.conf"
echo "downloading QEMU and an ARM64 Python to $folder" >&2
apt-get -qq update
apt-get -qq -y --download-only install python3 libstdc++6 >/dev/null
cd "$folder/apt/archives"
apt-get -qq download qemu-user-static:amd64 >/dev/null
for package in ./*_arm64.deb; do
    dpkg-deb --extract "$package" "$folder/root"
done
[ -e "$folder/root/lib" ] || ln -s usr/lib "$folder/root/lib" # from Debian 13 on no package brings it
dpkg-deb --extract qemu-user-static_*.deb qemu
if [ ! -s qemu/usr/bin/qemu-aarch64-static ]; then # from Debian 13 on the static one is in qemu-user
    apt-get -qq download qemu-user:amd64 >/dev/null
    dpkg-deb --extract qemu-user_*.deb qemu
    ln -sf qemu-aarch64 qemu/usr/bin/qemu-aarch64-static
fi
cp qemu/usr/bin/qemu-aarch64-static "$folder/qemu-aarch64"
cd "$OLDPWD"
rm -rf "$folder/apt"

version=$(readlink "$folder/root/usr/bin/python3")
"$2" -c "import sys, tomllib
print(*tomllib.load(open(sys.argv[1], 'rb'))['project']['dependencies'], sep='\n')" \
    "$source/pyproject.toml" >"$folder/requirements.txt"
# The versions of $2: only those of the same compilers find the kernels that kernels.py makes on this machine.
"$2" -m pip --disable-pip-version-check list --format freeze --exclude-editable >"$folder/constraints.txt"
"$2" -m pip --disable-pip-version-check --quiet install --target "$folder/site" --only-binary :all: \
    --platform manylinux_2_31_aarch64 --platform manylinux_2_28_aarch64 \
    --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
    --python-version "${version#python}" --requirement "$folder/requirements.txt" --constraint "$folder/constraints.txt"

# Under -0 Python takes this script for its executable, so it starts its children (child.py) in the same way.
cat >"$folder/python" <<END
#!/bin/sh
export PYTHONHOME="$folder/root/usr" PYTHONPATH="$folder/site:\${PYTHONPATH-}" XDG_CACHE_HOME="$folder/cache"
exec "$folder/qemu-aarch64" -cpu max -L "$folder/root" -0 "$folder/python" "$folder/root/usr/bin/python3" "\$@"
END
chmod +x "$folder/python"
