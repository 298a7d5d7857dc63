# shellcheck shell=bash
# An image of 1 GB with everything in its two layers that a copy could get wrong; for the scenario and the benchmark.

BIG=transship.dev/lab/big:1

# make_big_image NODE: from the node's own programs, in its Docker.
make_big_image() {
    lab exec "$1" bash -euo pipefail -s "$BIG" <<'NODE'
big=$1
docker ps -aq --filter name=making-big | xargs -r docker rm -f >/dev/null
mkdir -p /root/big/data /root/big/var/spool/cron/crontabs
cd /root/big
for part in 1 2 3 4 5 6; do head -c 50M /dev/urandom >"data/$part"; done
mkdir -p data/opaque/below data/gone && touch data/opaque/below/hidden data/gone/file data/deleted
echo '* * * * * root true' >var/spool/cron/crontabs/root
tar --one-file-system --xattrs --numeric-owner -c -C / usr bin sbin lib lib64 etc -C /root/big data var | docker import - "$big-base" >/dev/null
rm -rf /root/big
docker run --name making-big --network none "$big-base" bash -euc '
    rm -r /data/gone /data/deleted
    rm -r /data/opaque && mkdir -p /data/opaque && echo new >/data/opaque/new      # hides what was below
    cp /bin/true /usr/local/bin/elevated && chmod 6755 /usr/local/bin/elevated
    cp /bin/true /usr/local/bin/capable && setcap cap_net_raw+ep /usr/local/bin/capable
    mkfifo -m 0640 /data/fifo
    mknod -m 0600 /data/device c 1 7
    echo one >/data/name && ln /data/name /data/other-name
    ln -s /nowhere/at/all /data/dangling
    echo "0 3 * * * root true" >/etc/cron.d-made-here && ln /etc/cron.d-made-here /data/also-in-etc
    mkdir -p /etc/cron.d && echo "* * * * * root true" >/etc/cron.d/job
    echo "* * * * * true" >/var/spool/cron/crontabs/somebody && chmod 600 /var/spool/cron/crontabs/somebody
    mkdir -m 1777 /data/sticky && mkdir -m 2750 /data/setgid && echo kept >/data/setgid/file
    chown 12345:54321 /data/1 /data/setgid && chown -h 7:8 /data/dangling
    touch -d "2001-02-03 04:05:06.789" /data/2 /data/setgid && chmod 0000 /data/3
    head -c 4M /dev/urandom >/usr/local/share/changed' >/dev/null
docker commit making-big "$big" >/dev/null
docker rm making-big >/dev/null
docker image inspect -f '{{len .RootFS.Layers}} layers, {{.Size}} bytes' "$big"
NODE
}

# shellcheck disable=SC2016,SC2034 # expanded in the container; used by those who source this
# Prints everything that a container sees of its files, in a form that can be compared; without what the runtime
# itself puts there. The number of links only where programs look at it.
LOOK='cd / && set -o pipefail
find . -xdev \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./run -o -path ./.dockerenv -o -path ./var/run -o -path ./etc/hosts -o -path ./etc/hostname -o -path ./etc/resolv.conf -o -path ./etc/mtab \) -prune -o -printf "%p %y %m %U:%G %T@ %l %D:%i %n\n" | sort | awk "
    { links = (\$1 ~ /^\.\/(etc|var\/spool\/cron)\// && \$2 == \"f\") ? \$NF : \"-\"
      if (\$2 == \"d\") \$(NF-1) = \"-\"; else { if (!(\$(NF-1) in first)) first[\$(NF-1)] = \$1; \$(NF-1) = first[\$(NF-1)] }
      \$NF = links; # The runtime makes mount points in these.
      if (\$1 ~ /^\.(\/etc|\/var|\/var\/run)?$/) \$5 = \"-\"
      print }"
find . -xdev \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./run -o -path ./etc/hosts -o -path ./etc/hostname -o -path ./etc/resolv.conf -o -path ./etc/mtab \) -prune -o -type f ! -path ./.dockerenv -print0 | sort -z | xargs -0 sha256sum
getcap -r /usr /data | sort'
