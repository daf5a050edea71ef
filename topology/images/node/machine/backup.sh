# What both backups share. Sourced: TARGET is the keeper's rsync module (TARGET-kept is the same, to read from), EVERY_S
# the interval; take() makes one backup.
FIRST_S=15 # soon, but after the services have started
KEPT_S=30
BUSY_S=100

uptime_s() {
    read -r seconds _ < /proc/uptime
    echo "${seconds%.*}"
}

# The keeper switches to a new backup after the transfer; it counts as a backup only then. Two backups of the same second
# have the same size and time, but differ (-I).
kept() {
    until=$(($(uptime_s) + KEPT_S))
    while [ "$(uptime_s)" -lt $until ]; do
        rsync -aI "$TARGET-kept/current/backup.json" /run/kept.json 2> /dev/null && cmp -s "$1" /run/kept.json && return 0
        sleep 0.2
    done
    echo "the keeper did not make it the current one"
    return 1
}

# One at a time: two would share the keeper's folder for transfers. A transfer holds the lock until it ends, even if its
# shell was killed.
take_alone() (
    flock -w $BUSY_S 9 || { echo "another backup has been under way for $BUSY_S s"; exit 1; }
    take
) 9> "/run/$(basename "$0").lock"

# Makes one backup if asked to; otherwise one per interval, forever.
serve() {
    [ "$1" != once ] || { take_alone; exit; }
    sleep "$FIRST_S"
    while :; do
        take_alone || echo "the backup failed; tried again in $EVERY_S s"
        sleep "$EVERY_S"
    done
}
