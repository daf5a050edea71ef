<?php
// The folder of uploads, on most nodes an NFS mount. A file under its final name is always whole, and never changes.
declare(strict_types=1);

require __DIR__ . '/files.php';

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
