# shellcheck shell=bash
# What needs Debian's packages: sourced after lib.sh. The host's apt configuration is read, never
# changed: every call works on a private copy in a temporary directory.

readonly DEBIAN_KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
APT_DIR=${AIRBRIDGE_APT_DIR:-/etc/apt}
OS_RELEASE=${AIRBRIDGE_OS_RELEASE:-/etc/os-release}

# os_field NAME: one field of os-release, empty when it is not there.
os_field() { sed -n "s/^$1=\"\{0,1\}\([^\"]*\)\"\{0,1\}$/\1/p" "$OS_RELEASE" 2>/dev/null | head -n 1; }

is_root() { [ "$(id -u)" = "${AIRBRIDGE_ROOT_UID:-0}" ]; }
is_debian() { [ "$(os_field ID)" = debian ] && command -v apt-get >/dev/null 2>&1; }

# debian_targets: the host's Debian sources as "URI suite component" lines, from one-line and deb822
# files. (apt-get indextargets would print them too, but only for lists that were downloaded before.)
# Vendors that borrow Debian's suite names (Docker's own "bookworm stable") have no component "main".
debian_targets() {
  local codename uri suite list
  codename=$(os_field VERSION_CODENAME)
  {
    # Comments go first; the empty line after each file ends its last stanza.
    for list in "$APT_DIR"/sources.list "$APT_DIR"/sources.list.d/*.list; do
      [ ! -r "$list" ] || awk '{sub(/#.*/, "")} $1 == "deb" {
        sub(/^[ \t]*deb[ \t]+(\[[^]]*\][ \t]*)?/, "")
        for (i = 3; i <= NF; i++) print $1, $2, $i
      }' "$list"
    done
    for list in "$APT_DIR"/sources.list.d/*.sources; do
      [ ! -r "$list" ] || { sed '/^#/d' "$list" && echo; }
    done | awk '
      function finish(  u, s, c, i, j, k, nu, ns, nc) {
        if (field["types"] ~ /(^| )deb( |$)/ && tolower(field["enabled"]) !~ /^(no|false|0|off)$/) {
          nu = split(field["uris"], u, " "); ns = split(field["suites"], s, " "); nc = split(field["components"], c, " ")
          for (i = 1; i <= nu; i++) for (j = 1; j <= ns; j++) for (k = 1; k <= nc; k++) print u[i], s[j], c[k]
        }
        split("", field)
      }
      /^[ \t]*$/ {finish(); next}
      /^[^ \t:]+:/ {name = tolower($1); sub(/:.*/, "", name); sub(/^[^:]+:[ \t]*/, ""); field[name] = $0; next}
      {field[name] = field[name] " " $0}
    '
  } | while read -r uri suite component; do
    [ "$component" = main ] || continue
    case "$suite" in
      "$codename" | "$codename-updates" | "$codename-security" | "$codename/updates") ;;
      *) continue ;;
    esac
    case "$uri" in
      # Cloud images name a list of mirrors in a file that no container has: take its first.
      mirror+file:*)
        uri=$(awk '/^[a-z]/ {print $1; exit}' "${uri#mirror+file:}" 2>/dev/null || true)
        [ -n "$uri" ] || continue
        ;;
      cdrom:* | file:* | copy:*) continue ;; # of this machine only
    esac
    printf '%s %s %s\n' "${uri%/}" "$suite" "$component"
  done | sort -u
}

# debian_mirror: the archive that serves the host's own release, or DEBIAN_MIRROR; empty when neither is known.
debian_mirror() {
  local mirror
  mirror=$(debian_targets | awk -v suite="$(os_field VERSION_CODENAME)" '$2 == suite {print $1; exit}')
  printf '%s\n' "${mirror:-$(setting DEBIAN_MIRROR '')}"
}

# debian_sources CODENAME: a deb822 source file for that release from the host's own mirrors.
debian_sources() {
  local own mirror security targets
  own=$(os_field VERSION_CODENAME)
  targets=$(debian_targets)
  if [ "$1" != "$own" ] || [ -z "$targets" ]; then
    security=$(printf '%s\n' "$targets" | awk '$2 ~ /security/ {print $1; exit}')
    mirror=$(debian_mirror)
    [ -n "$mirror" ] || die "this machine's apt names no Debian archive" "set DEBIAN_MIRROR to the address of one"
    targets="$mirror $1 main
$mirror $1-updates main${security:+
$security $1-security main}"
  fi
  printf '%s\n' "$targets" | while read -r uri suite component; do
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\nSigned-By: %s\n\n' \
      "$uri" "$suite" "$component" "$DEBIAN_KEYRING"
  done
}

# apt_settings: what the host's apt must know to reach its mirror (proxy, clocks of frozen mirrors), as
# apt.conf lines. A proxy on this machine's loopback is left out: a container could not reach it.
apt_settings() {
  apt-config dump 2>/dev/null | grep -E '^Acquire::((https?)::Proxy|Check-Valid-Until|Check-Date|Retries) ' |
    grep -vE 'Proxy .*(localhost|127\.0\.0\.1|\[::1\])' || true
}

# apt_private_install PACKAGE...: install on the host from Debian, with lists, sources and pins of our
# own. On Debian 12 the engine's packages come from Debian 13, whose builds need only libc 2.34; runc
# must stay Debian 12's (13's needs a newer libc). Everything else comes from the host's release.
apt_private_install() {
  local private codename
  codename=$(os_field VERSION_CODENAME)
  private=$(mktemp -d)
  mkdir -p "$private/sources" "$private/preferences" "$private/lists/partial"
  chmod 755 "$private"
  debian_sources "$codename" >"$private/sources/host.sources"
  if [ "$codename" = bookworm ]; then
    debian_sources trixie | awk 'BEGIN {RS=""; ORS="\n\n"} $0 ~ /Suites: trixie\n/' >"$private/sources/engine.sources"
    cat >"$private/preferences/engine" <<'PIN'
Package: *
Pin: release n=trixie
Pin-Priority: 1

Package: docker.io docker-cli docker-compose docker-buildx containerd
Pin: release n=trixie
Pin-Priority: 990
PIN
  fi
  local options=(
    -o "Dir::Etc::sourcelist=/dev/null" -o "Dir::Etc::sourceparts=$private/sources"
    -o "Dir::Etc::preferencesparts=$private/preferences" -o "Dir::State::lists=$private/lists"
    -o "Acquire::Languages=none" -o "Acquire::Retries=3" -o "DPkg::Lock::Timeout=180"
  )
  local code=0
  {
    apt-get "${options[@]}" update &&
      DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" install -y --no-install-recommends "$@"
  } </dev/null || code=$?
  rm -rf "$private"
  return "$code"
}
