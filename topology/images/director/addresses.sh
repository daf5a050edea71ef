# The addresses among heartbeat's resources, and the interface that one of them is on here, if any. Sourced.
addresses=$(sed '/^#/d' /etc/ha.d/haresources | grep -o 'IPaddr2::[0-9.]*' | cut -d : -f 3)
interface() { ip -o addr | awk -v "inet=$1/" '$3 == "inet" && index($4, inet) == 1 { print $2; exit }'; }
