
# Snapshots, paths in them, hosts, tags and profiles.
function __nfreezer_values
    set -l words (commandline -opc) (commandline -ct)
    set -lx SSH_ASKPASS_REQUIRE never
    $words[1] complete -- $words[2..-1] 2>/dev/null </dev/null
end
complete -c nfreezer -k -a '(__nfreezer_values)'
