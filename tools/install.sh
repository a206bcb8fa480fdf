#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs what `make` has built, or removes it again.
# usage: install.sh install|uninstall PREFIX DESTDIR DATA_DIR SYSCONF_DIR [EXTRAS]
#
# EXTRAS: words for which there is a file requirements/WORD.txt; those libraries are installed too.
# In the environment, for packagers: STAGE1_IMAGES, a directory that tools/build_stage1.py wrote (build/stage1), and
# INTERPRETER, what the launcher names (the one that .venv was made with). The same input gives the same bytes.
#
#   PREFIX/bin/rkt                            launcher
#   PREFIX/lib/rkt/package/rkt                the engine, compiled; all of it in one file: PREFIX/lib/rkt/package/modules
#   PREFIX/lib/rkt/site                       libraries for commands that are not on the hot path
#   PREFIX/lib/rkt/stage1-images              built-in stage1 images and their list
#   PREFIX/lib/rkt/setup-data-dir.sh          groups and directories, as run at the end
#   PREFIX/lib/{systemd/system,tmpfiles.d,sysusers.d}
#   PREFIX/share/man, bash-completion, zsh, fish
#
# Vendor configuration may live in PREFIX/lib/rkt too, so only these sub-directories are ever replaced or removed.
set -euo pipefail

action=$1 prefix=$2 destdir=$3 data_dir=$4 sysconf_dir=$5
read -r -a extras <<<"${6:-}"
umask 022
cd "$(dirname "$(readlink -f "$0")")/.."
case $prefix in /*) ;; *)
    echo "install: PREFIX must be an absolute path: $prefix" >&2
    exit 1
    ;;
esac
prefix=${prefix%/}
root=$destdir$prefix
lib=$root/lib/rkt
python=.venv/bin/python
stage1_images=${STAGE1_IMAGES:-build/stage1}

pages() { find build/man -maxdepth 1 -name '*.[1-8]' -printf '%f\n'; }

remove() {
    rm -rf "$lib"/{package,site,stage1-images} "$lib"/.{package,site,stage1-images}.{new,old}
    rm -f "$root/bin/rkt" "$lib/setup-data-dir.sh" "$root"/lib/systemd/system/rkt-gc.{service,timer} \
        "$root"/lib/systemd/system/rkt-metadata.{service,socket}
    rm -f "$root"/lib/{tmpfiles.d,sysusers.d}/rkt.conf
    rm -f "$root/share/bash-completion/completions/rkt" "$root/share/zsh/site-functions/_rkt"
    rm -f "$root/share/fish/vendor_completions.d/rkt.fish"
    rm -f "$root"/share/man/man[1-8]/rkt{,-*}.[1-8]
    rmdir "$lib" 2>/dev/null || true
}

# replace NAME: what was staged becomes $lib/NAME; a command that starts meanwhile finds the old or the new one
replace() {
    rm -rf "$lib/.$1.old"
    if [ -e "$lib/$1" ]; then mv "$lib/$1" "$lib/.$1.old"; fi
    mv "$lib/.$1.new" "$lib/$1"
    rm -rf "$lib/.$1.old"
}

# fill FILE TARGET: install a text with the directories of this installation in it
fill() {
    sed -e "s|@BIN_DIR@|$prefix/bin|g" -e "s|@DATA_DIR@|$data_dir|g" -e "s|@LOCAL_CONFIG_DIR@|$sysconf_dir/rkt|g" \
        "$1" >"$2.new"
    chmod 644 "$2.new"
    mv "$2.new" "$2"
}

install_all() {
    local page extra unit
    for extra in "${extras[@]}"; do
        [ "$extra" = keyless ] || {
            echo "install: unknown EXTRAS=$extra: known is keyless" >&2
            exit 1
        }
    done
    mkdir -p "$root/bin" "$lib" "$root"/lib/{systemd/system,tmpfiles.d,sysusers.d} \
        "$root"/share/{bash-completion/completions,zsh/site-functions,fish/vendor_completions.d}
    rm -rf "$lib"/.{package,site,stage1-images}.new

    mkdir -p "$lib/.package.new"
    tar -C src --exclude=__pycache__ --owner=0 --group=0 -cf - rkt | tar -C "$lib/.package.new" --no-same-permissions -xf -
    "$python" -I tools/module_file.py --package "$lib/.package.new"
    # For what imports without the launcher, as the workers do. Unchecked: no source is looked at (docs/devel/start-up.md).
    # One process, in order: what it compiled before decides which strings of a module are marked as shared.
    "$python" -I -m compileall -q --invalidation-mode unchecked-hash \
        -s "$lib/.package.new" -p "$prefix/lib/rkt/package" "$lib/.package.new"
    mkdir -p "$lib/.site.new"
    for extra in runtime "${extras[@]}"; do
        "$python" -I tools/copy_libraries.py --requirements "requirements/$extra.txt" --target "$lib/.site.new"
    done
    "$python" -I -m compileall -q --invalidation-mode unchecked-hash \
        -s "$lib/.site.new" -p "$prefix/lib/rkt/site" "$lib/.site.new"
    mkdir -p "$lib/.stage1-images.new"
    install -m 644 "$stage1_images"/stage1.json "$stage1_images"/*.aci "$lib/.stage1-images.new"
    # A checkout made with a tight umask has files that members of the group rkt could not read.
    chmod -R u=rwX,go=rX "$lib"/.{package,site,stage1-images}.new
    replace package
    replace site
    replace stage1-images

    install -m 755 tools/setup-data-dir.sh "$lib/setup-data-dir.sh"
    for page in $(pages); do
        install -D -m 644 "build/man/$page" "$root/share/man/man${page##*.}/$page"
    done
    install -m 644 build/completion/rkt.bash "$root/share/bash-completion/completions/rkt"
    install -m 644 build/completion/_rkt "$root/share/zsh/site-functions/_rkt"
    install -m 644 build/completion/rkt.fish "$root/share/fish/vendor_completions.d/rkt.fish"
    for unit in rkt-gc.service rkt-gc.timer rkt-metadata.service rkt-metadata.socket; do
        fill "dist/systemd/$unit" "$root/lib/systemd/system/$unit"
    done
    fill dist/tmpfiles.d/rkt.conf "$root/lib/tmpfiles.d/rkt.conf"
    fill dist/sysusers.d/rkt.conf "$root/lib/sysusers.d/rkt.conf"
    if [ "$data_dir" != /var/lib/rkt ] && [ ! -e "$destdir$sysconf_dir/rkt/paths.d/data.json" ]; then
        mkdir -p "$destdir$sysconf_dir/rkt/paths.d"
        printf '{"rktKind":"paths","rktVersion":"v1","data":"%s"}\n' "$data_dir" \
            >"$destdir$sysconf_dir/rkt/paths.d/data.json"
    fi
    # The launcher comes last: it is what makes the rest reachable.
    "$python" -I tools/build_launcher.py --output "$root/bin/rkt" --package-path "$prefix/lib/rkt/package" \
        --library-path "$prefix/lib/rkt/site" --stage1-images-path "$prefix/lib/rkt/stage1-images" \
        --man-path "$prefix/share/man" --compiled ${INTERPRETER:+--python "$INTERPRETER"}

    if [ "$(id -u)" = 0 ] && [ -z "$destdir" ]; then
        "$lib/setup-data-dir.sh" "$root/lib/tmpfiles.d/rkt.conf"
        echo "installed $root/bin/rkt, data in $data_dir, configuration in $sysconf_dir/rkt"
    else
        echo "installed $root/bin/rkt; on the host run as root: $prefix/lib/rkt/setup-data-dir.sh $prefix/lib/tmpfiles.d/rkt.conf"
    fi
}

case $action in
install) install_all ;;
uninstall) remove ;;
*)
    echo "usage: install.sh install|uninstall PREFIX DESTDIR DATA_DIR SYSCONF_DIR [EXTRAS]" >&2
    exit 2
    ;;
esac
