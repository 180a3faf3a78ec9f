# shellcheck shell=bash
# What the scripts of this directory share: finding Go, and installing the Debian
# packages without which they could not run.

# A checkout of another user's makes git, and with it the build, fail. What these
# scripts build carries no commit.
export GOFLAGS="${GOFLAGS:+$GOFLAGS }-buildvcs=false"

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# run prints a command as a session shows it, and runs it.
run() {
	printf '\n$ %s\n' "$*"
	"$@"
}

packages=() # what install has to install

# need COMMAND PACKAGE... asks for packages if there is no such command.
need() {
	command -v "$1" >/dev/null || packages+=("${@:2}")
}

# need_base asks for what everything here needs. Go fetches modules over HTTPS,
# and without these certificates every server is a stranger to it.
need_base() {
	[[ -e /etc/ssl/certs/ca-certificates.crt ]] || packages+=(ca-certificates)
	need fusermount3 fuse3
	need getfattr attr
}

# install says what is missing and installs it, or says who could.
install() {
	local list sudo=()
	((${#packages[@]})) || return 0
	mapfile -t list < <(printf '%s\n' "${packages[@]}" | sort -u)
	command -v apt-get >/dev/null ||
		die "install what Debian calls ${list[*]} with this system's package manager, and start again"
	if ((EUID != 0)); then
		command -v sudo >/dev/null || die "have root run: apt-get install ${list[*]}"
		sudo=(sudo)
	fi
	echo "Missing here, and installed now: ${list[*]}"
	run "${sudo[@]}" apt-get -qq update || echo "no new package lists; the old ones may do"
	run "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
		apt-get -qq -o Dpkg::Use-Pty=0 install -y --no-install-recommends "${list[@]}" </dev/null ||
		die "apt-get could not install ${list[*]}: see above, and start again"
	echo
}

# find_go puts Go into PATH. Its own instructions install it where only login
# shells look.
find_go() {
	command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
	command -v go >/dev/null || die "Go is missing: install it from https://go.dev/dl/"
}
