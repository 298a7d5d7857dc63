#!/bin/sh
# apt-get, apt-cache, dpkg and dpkg-query by the name that it is called by, as far as the executor asks them. It lies in
# usr/bin of the host's root. Before every change it tells the sweep, which looks at what a crash there would leave. As
# with dpkg, a package of which it was killed while it unpacked can be neither configured nor removed.
set -eu
umask 022
root=${0%/usr/bin/*}
# One file for each package: status, version, and whether it must be unpacked again.
state=$root/var/lib/dpkg/state
# What was unpacked: its archive, which is lines of a word and a value.
info=$root/var/lib/dpkg/info
repository=$root/srv/repository
# All that there are, in the order in which they can be configured.
packages='runc containerd'

fail() {
    echo "$*" >&2
    exit 100
}

# Says what is about to happen, and waits for leave.
tell() {
    echo "$*" >"${root%/*}/asks"
    read -r leave <"${root%/*}/answers"
    [ "$leave" = go ] || fail "$leave"
}

# A file, by way of another name; durable when it returns.
put() { # path, text
    tell change "$1.dpkg-tmp"
    [ ! -e "$1.dpkg-tmp" ] || rm "$1.dpkg-tmp"
    printf '%s\n' "$2" >"$1.dpkg-tmp"
    tell sync-file "$1.dpkg-tmp"
    tell change "$1"
    mv "$1.dpkg-tmp" "$1"
    tell sync-directory "${1%/*}"
}

# Whoever died may have removed it, and not synced.
drop() { # path
    if [ -e "$1" ]; then
        tell change "$1"
        rm "$1"
    fi
    tell sync-directory "${1%/*}"
}

status() { # package
    status=none version='' broken=''
    [ ! -e "$state/$1" ] || read -r status version broken <"$state/$1"
}

look() { # archive
    [ -e "$1" ] || fail "there is no $1"
    name='' offered='' needs='' unit=''
    while read -r word value; do
        case $word in
        name) name=$value ;;
        version) offered=$value ;;
        needs) needs=$value ;;
        unit) unit=$value ;;
        esac
    done <"$1"
    [ -n "$name" ] || fail "$1 is no archive"
}

unpack() { # archive
    look "$1"
    put "$state/$name" "half-installed $offered reinstreq"
    tell unpack "$name"
    while read -r word path text; do
        case $word in
        file) put "$root/$path" "$text" ;;
        conffile) put "$root/$path.dpkg-new" "$text" ;;
        esac
    done <"$1"
    put "$info/$name" "$(cat "$1")"
    put "$state/$name" "unpacked $offered"
}

configure() {
    for package in $packages; do
        status "$package"
        case $status in unpacked | half-configured) ;; *) continue ;; esac
        look "$info/$package"
        for needed in $needs; do
            status "$needed"
            [ "$status" = installed ] || fail "$package needs $needed, which is not configured"
        done
        put "$state/$package" "half-configured $offered"
        while read -r word path text; do
            [ "$word" = conffile ] || continue
            # The file that is there is kept.
            [ -e "$root/$path" ] || put "$root/$path" "$text"
            drop "$root/$path.dpkg-new"
        done <"$info/$package"
        [ -z "$unit" ] || tell start "$unit"
        put "$state/$package" "installed $offered"
    done
}

purge() { # package
    status "$1"
    [ -z "$broken" ] || fail "$1 is in a very bad inconsistent state; reinstall it before attempting a removal"
    put "$state/$1" "half-installed $version"
    if [ -e "$info/$1" ]; then
        look "$info/$1"
        [ -z "$unit" ] || tell remove "$unit"
        while read -r word path _; do
            case $word in
            file) drop "$root/$path" ;;
            conffile) for end in '' .dpkg-new .dpkg-tmp; do drop "$root/$path$end"; done ;;
            esac
        done <"$info/$1"
    fi
    drop "$info/$1"
    drop "$state/$1"
}

audit() {
    for package in $packages; do
        status "$package"
        case $status in none | installed) ;; *) echo "$package is $status" ;; esac
    done
}

for last in "$@"; do :; done
case "${0##*/} $*" in
"dpkg --audit")
    audit
    ;;
"dpkg "*)
    action='' skip=no
    for argument in "$@"; do
        case $argument in
        --skip-same-version) skip=installed ;;
        --configure | --unpack | --install | --purge) action=$argument ;;
        -*) ;;
        *)
            if [ "$action" = --purge ]; then
                purge "$argument"
            else
                look "$argument"
                status "$name"
                [ "$status" = "$skip" ] || unpack "$argument"
            fi
            ;;
        esac
    done
    case $action in --install | --configure) configure ;; esac
    ;;
"dpkg-query "*)
    status "$last"
    [ "$status" != none ] || fail "no packages found matching $last"
    echo "$status $version"
    ;;
"apt-cache "*)
    look "$repository/$last.deb"
    echo "$name | $offered | repository"
    ;;
"apt-get install -s "*)
    look "$repository/${last%=*}.deb"
    for package in $needs $name; do
        status "$package"
        look "$repository/$package.deb"
        [ "$status" != none ] || echo "Inst $package ($offered Debian [amd64])"
    done
    ;;
"apt-get download "*)
    shift
    for package in "$@"; do
        look "$repository/${package%=*}.deb"
        tell change "$PWD/${name}_$offered.deb"
        cp "$repository/$name.deb" "${name}_$offered.deb"
    done
    ;;
"apt-get install "*)
    [ -z "$(audit)" ] || fail "dpkg was interrupted"
    for argument in "$@"; do
        case $argument in /*)
            look "$argument"
            status "$name"
            [ "$status" = installed ] || unpack "$argument"
            ;;
        esac
    done
    configure
    ;;
*)
    fail "nobody asks this: $0 $*"
    ;;
esac
