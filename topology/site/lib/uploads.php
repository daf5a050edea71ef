<?php
// The folder of uploads, on most nodes an NFS mount. A file under its final name is always whole, and never changes.
declare(strict_types=1);

/**
 * Stores an upload durably. Returns whether it is new; one with the same content is left as it is, and counts.
 * The folder is mounted so that a change of it (the link) is on the disk when it returns: sync export, or dirsync.
 */
function store(string $folder, string $name, string $bytes): bool
{
    $target = "$folder/$name";
    $draft = write_draft("$folder/.$name." . bin2hex(random_bytes(8)), $bytes);
    $linked = @link($draft, $target); // unlike rename() it never overwrites
    $reason = reason();
    // When an answer of an NFS server was lost, the repeated request is refused although the first one made the link.
    // The number of links tells.
    $links = $linked ? 2 : (@stat($draft)['nlink'] ?? 0);
    $removed = @unlink($draft);
    if ($links === 2) {
        return true;
    }
    try {
        $present = content($target, flush: true);
    } catch (Refusal $failure) {
        throw new Refusal(500, "$reason; then " . $failure->getMessage(), 'unknown');
    }
    if ($present === null) {
        // With the draft gone, not even a request that is still under way can make the link.
        throw $removed ? new Refusal(503, $reason) : new Refusal(500, "$reason; its draft remains", 'unknown');
    }
    if ($present !== $bytes) {
        throw new Refusal(409, "the upload $name exists with other content");
    }
    return false;
}

/** Writes the bytes down to the disk under a name that no reader looks at. Whatever fails here wrote no upload. */
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
    return 'the uploads are not available: ' . (error_get_last()['message'] ?? 'a file was not read or written whole');
}
