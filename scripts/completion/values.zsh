# Snapshots, paths in them, hosts, tags and profiles.
_nfreezer_values() {
    local line
    local -a values shown end
    [[ $PREFIX == -* || $CURRENT -lt 3 ]] && return 1
    for line in "${(@f)$(SSH_ASKPASS_REQUIRE=never command nfreezer complete -- "${(@Q)words[2,CURRENT]}" 2>/dev/null </dev/null)}"; do
        [[ -n $line ]] || continue
        values+=("${line%%$'\t'*}")
        shown+=("${line//$'\t'/  }")
    done
    (( $#values )) || return 1
    [[ ${values[1]} == */ ]] && end=(-S '')
    compadd -V nfreezer -l -d shown "${end[@]}" -a values
}

_nfreezer() {
    _nfreezer_values || _nfreezer_options "$@"
}
