<?php
// The folder of uploads, on most nodes an NFS mount. A file under its final name is always complete, and never changes.
declare(strict_types=1);

require __DIR__ . '/files.php';

/**
 * Stores an upload durably. Returns whether it is new; an upload with the same content is left unchanged, and counts.
 * The folder is mounted so that its change (the link) is on the disk when the call returns: sync export, or dirsync.
 */
function store(string $folder, string $name, string $bytes): bool
{
    $target = "$folder/$name";
    $draft = write_draft("$folder/.$name." . bin2hex(random_bytes(8)), $bytes);
    $linked = @link($draft, $target); // unlike rename() it never overwrites
    $reason = reason();
    // When an answer of an NFS server was lost, the repeated request is refused although the first one made the link.
    // The number of links shows it.
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
        // Without the draft, not even an outstanding request can still make the link.
        throw $removed ? new Refusal(503, $reason) : new Refusal(500, "$reason; its draft remains", 'unknown');
    }
    if ($present !== $bytes) {
        throw new Refusal(409, "the upload $name exists with other content");
    }
    return false;
}
