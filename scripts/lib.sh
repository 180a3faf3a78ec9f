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

packages=() # what is missing

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

# install_missing says what is missing and installs it, or says who could.
install_missing() {
	local list log sudo=()
	((${#packages[@]})) || return 0
	mapfile -t list < <(printf '%s\n' "${packages[@]}" | sort -u)
	command -v apt-get >/dev/null ||
		die "install what Debian calls ${list[*]} with this system's package manager, and start again"
	if ((EUID != 0)); then
		command -v sudo >/dev/null || die "have root run: apt-get install ${list[*]}"
		sudo=(sudo)
	fi
	echo "Missing here, and installed now: ${list[*]}"
	log=$(mktemp)
	printf '\n$ %s\n' "${sudo[*]}${sudo:+ }apt-get install ${list[*]}"
	# Without new lists the old ones may do.
	"${sudo[@]}" apt-get -qq update >"$log" 2>&1 || cat "$log"
	"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
		apt-get -qq install -y --no-install-recommends "${list[@]}" </dev/null >"$log" 2>&1 || {
		cat "$log"
		rm "$log"
		die "apt-get could not install ${list[*]}: see above, and start again"
	}
	rm "$log"
	echo
}

# find_go puts Go into PATH. Its own instructions install it where only login
# shells look.
find_go() {
	command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
	command -v go >/dev/null || die "Go is missing: install it from https://go.dev/dl/"
}
