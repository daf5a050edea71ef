<?php
// Files that are complete, or do not exist.
declare(strict_types=1);

/** Writes the bytes to the disk under a name that no reader uses. If this fails, no file was written. */
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

/** All bytes of a file; null only if the file certainly does not exist. */
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
    // An error in the middle looks like the end of the file. And a file that another request has just linked may not be on
    // the disk yet, unless this request flushes it.
    $whole = $bytes !== '' && strlen((string) $bytes) === fstat($file)['size'] && (!$flush || @fsync($file));
    fclose($file);
    return $whole ? $bytes : throw new Refusal(503, reason());
}

/** PHP's last error message: the only way to get an errno here. */
function reason(): string
{
    return 'the files are not available: ' . (error_get_last()['message'] ?? 'a file was not read or written whole');
}
