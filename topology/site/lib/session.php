<?php
// PHP's sessions, in files of this node. Only the scripts that include this open one.
declare(strict_types=1);

function start(): void
{
    $started = session_start([
        'use_strict_mode' => true, // never an id that the client invented
        'cookie_httponly' => true,
        'cookie_samesite' => 'Lax',
        'cache_limiter' => '', // the site has its own Cache-Control
    ]);
    if (!$started) {
        unset_cookie();
        throw new Refusal(503, 'the session cannot be opened');
    }
}

/** Opens the session that the request's cookie names, if this node has it. */
function resume(): bool
{
    $id = $_COOKIE[session_name()] ?? null;
    // PHP would start a new session for an id that it does not know, so look for its file first.
    $known = is_string($id) && preg_match('/^[A-Za-z0-9,-]{22,256}$/D', $id)
        && is_file(session_save_path() . "/sess_$id");
    if ($known) {
        start();
    }
    return $known;
}

/** Writes the session. PHP only warns if that fails, for instance on a full disk. */
function keep(): void
{
    error_clear_last();
    session_write_close();
    if (error_get_last() !== null) {
        unset_cookie();
        throw new Refusal(503, 'the session cannot be written');
    }
}

/** Withdraws the cookie that PHP was about to send: the client must not get a session that failed. */
function unset_cookie(): void
{
    header_remove('Set-Cookie');
}
