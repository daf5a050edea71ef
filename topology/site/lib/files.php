<?php
// Files that are whole, or not there at all.
declare(strict_types=1);

/** Writes the bytes down to the disk under a name that no reader looks at. Whatever fails here wrote no file. */
function write_draft(string $draft, string $bytes): string
{
    error_clear_last();
    $file = @fopen($draft, 'xb') ?: throw new Refusal(503, reason());
    $whole = @fwrite($file, $bytes) === strlen($bytes) && fflush($file) && @fsync($file);
    $reason = reason();
    if (!fclose($file) || !$whole) {
        @unlink($draft);
        throw new Refusal(503, $reason);
    }
    return $draft;
}

/** A file's bytes, all of them; null only if the file is certainly not there. */
function content(string $path, bool $flush = false): ?string
{
    error_clear_last();
    $file = @fopen($path, 'rb');
    if ($file === false) {
        $reason = reason();
        $absent = str_ends_with($reason, 'No such file or directory') && is_dir(dirname($path));
        return $absent ? null : throw new Refusal(503, $reason);
    }
    $bytes = @stream_get_contents($file);
    // An error in the middle looks like an end of the file. And what another request has just linked need not be on the
    // disk yet, unless this one flushes it.
    $whole = $bytes !== '' && strlen((string) $bytes) === fstat($file)['size'] && (!$flush || @fsync($file));
    fclose($file);
    return $whole ? $bytes : throw new Refusal(503, reason());
}

/** What PHP last complained of: the only way to learn of an errno here. */
function reason(): string
{
    return 'the files are not available: ' . (error_get_last()['message'] ?? 'a file was not read or written whole');
}
