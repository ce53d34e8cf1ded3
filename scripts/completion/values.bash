
# Snapshots, paths in them, hosts, tags and profiles; else commands and options.
_nfreezer_values() {
    local words value start
    read -a words <<<"${COMP_LINE:0:COMP_POINT}"
    [[ ${COMP_LINE:0:COMP_POINT} == *[[:space:]] ]] && words+=("")
    local current=${words[${#words[@]} - 1]}
    COMPREPLY=()
    if [[ $current != -* && ${#words[@]} -gt 2 ]]; then
        # The shell replaces what is behind the last colon.
        [[ $COMP_WORDBREAKS == *:* ]] && start=${current%"${current##*:}"}
        while IFS=$'\t' read -r value _; do
            printf -v value %q "${value#"$start"}"
            COMPREPLY+=("$value")
        done < <(SSH_ASKPASS_REQUIRE=never "$1" complete -- "${words[@]:1}" 2>/dev/null </dev/null)
    fi
    if [[ ${#COMPREPLY[@]} -eq 0 ]]; then
        _nfreezer "$@"
    elif [[ ${COMPREPLY[0]} == */ ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -F _nfreezer_values -o nosort -o bashdefault -o default nfreezer
