# What heartbeat's files say, in all spellings that heartbeat takes, and the interfaces of this node. Sourced.
# The reader of harness/formats/haresources.py, in awk: comments anywhere, lines joined at a backslash, a bare address is
# one of IPaddr. Prints a director and an address a line.
haresources() {
    awk '{
        sub(/#.*/, ""); sub(/\r$/, "")
        if (sub(/\\$/, " ")) { joined = joined $0; next }
        $0 = joined $0; joined = ""
        for (i = 2; i <= NF; i++) {
            if ($i ~ /^[0-9]/) { split($i, part, "::"); found = part[1] }
            else if ($i ~ /^IPaddr2?::/) { split($i, part, "::"); found = part[2] }
            else continue
            sub(/\/.*/, "", found)
            print tolower($1), found
        }
    }' "${1:-/etc/ha.d/haresources}"
}
# Whether addresses come home: the last auto_failback of ha.cf, with the words of cl_str_to_boolean for true.
comes_home() {
    awk '{ sub(/[#\r].*/, "") } $1 == "auto_failback" { gsub(/,/, " "); value = tolower($NF) }
        END { exit value !~ /^(on|true|yes|y|1)$/ }' "${1:-/etc/ha.d/ha.cf}"
}
addresses=$(haresources | cut -d ' ' -f 2)
interface() { ip -o addr | awk -v "inet=$1/" '$3 == "inet" && index($4, inet) == 1 { print $2; exit }'; }
