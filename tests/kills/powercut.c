/*
 * What a disk still has after the power went: a shared library, loaded with LD_PRELOAD, for one folder.
 *
 *   GSB_POWERCUT_FOLDER   the folder, without folders in it
 *   GSB_POWERCUT_IMAGE    an empty folder for its image
 *
 * The rules are those that POSIX promises and no more. What was written is in the image once the file was synchronised,
 * as it was at that moment; so is a truncation. That a name was given to a file, or taken from one, is in the image
 * once the folder itself was synchronised. Everything else never happened.
 *
 * In the image a file's bytes lie under the number of its inode, and the list "names" says what the folder looked like
 * when it was last synchronised: one line "inode name" for each file. A file in the list that was never synchronised
 * is empty. Copying goes on inside the call that synchronises, so that a process which dies in it leaves the image half
 * written, as a disk would; "names" is replaced at once, as a journal's commit would.
 *
 * Not seen: O_SYNC, O_DSYNC, msync, sync_file_range and syncfs. SQLite uses none of them, and whoever did would find
 * less in the image than the disk has, never more.
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE 65536

typedef int (*call_on_fd)(int);

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static void die(const char *why)
{
    fprintf(stderr, "powercut: %s: %s\n", why, strerror(errno));
    abort();
}

static const char *setting(const char *name)
{
    const char *value = getenv(name);
    if (value == NULL)
        die(name);
    return value;
}

/* 2: the folder itself; 1: a file in it; 0: neither. */
static int place_of(int fd, struct stat *found)
{
    char link[64], path[PATH_MAX];
    const char *folder = setting("GSB_POWERCUT_FOLDER");
    size_t length = strlen(folder);
    ssize_t got;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    got = readlink(link, path, sizeof path - 1);
    if (got < 0 || fstat(fd, found) != 0)
        return 0;
    path[got] = '\0';
    if (strncmp(path, folder, length) != 0)
        return 0;
    if (path[length] == '\0')
        return 2;
    return path[length] == '/' && S_ISREG(found->st_mode);
}

static ssize_t read_piece(int fd, char *piece, off_t at)
{
    ssize_t got = pread(fd, piece, PIECE, at);
    if (got < 0)
        die("pread");
    return got;
}

static void write_piece(int fd, const char *piece, ssize_t size, off_t at)
{
    for (ssize_t done = 0; done < size;) {
        ssize_t put = pwrite(fd, piece + done, size - done, at + done);
        if (put <= 0)
            die("pwrite");
        done += put;
    }
}

/* Make the image of one file equal to the file. Read through the caller's own descriptor: closing another one of the
 * same file would release the locks that this process holds on it (POSIX, fcntl). */
static void keep_bytes(int fd, const struct stat *found)
{
    static char now[PIECE], then[PIECE];
    char path[PATH_MAX];
    ssize_t got;
    int image;

    snprintf(path, sizeof path, "%s/%llu", setting("GSB_POWERCUT_IMAGE"), (unsigned long long)found->st_ino);
    image = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (image < 0)
        die(path);
    for (off_t at = 0; (got = read_piece(fd, now, at)) > 0; at += got)
        if (read_piece(image, then, at) < got || memcmp(now, then, got) != 0)
            write_piece(image, now, got, at);
    if (ftruncate(image, found->st_size) != 0)
        die("ftruncate");
    close(image);
}

/* Note what the folder looks like. */
static void keep_names(void)
{
    const char *folder = setting("GSB_POWERCUT_FOLDER"), *image = setting("GSB_POWERCUT_IMAGE");
    char next[PATH_MAX], names[PATH_MAX], path[PATH_MAX];
    struct dirent *each;
    struct stat found;
    DIR *open_folder = opendir(folder);
    FILE *list;

    snprintf(next, sizeof next, "%s/names.next", image);
    snprintf(names, sizeof names, "%s/names", image);
    list = fopen(next, "we");
    if (open_folder == NULL || list == NULL)
        die("names");
    while ((each = readdir(open_folder)) != NULL) {
        snprintf(path, sizeof path, "%s/%s", folder, each->d_name);
        if (stat(path, &found) == 0 && S_ISREG(found.st_mode))
            fprintf(list, "%llu %s\n", (unsigned long long)found.st_ino, each->d_name);
    }
    closedir(open_folder);
    if (fclose(list) != 0 || rename(next, names) != 0)
        die("names");
}

static int synchronise(const char *name, int fd)
{
    call_on_fd really = (call_on_fd)dlsym(RTLD_NEXT, name);
    struct stat found;
    int result = really(fd), before = errno, place;

    if (result != 0)
        return result;
    pthread_mutex_lock(&one_at_a_time);
    place = place_of(fd, &found);
    if (place == 1)
        keep_bytes(fd, &found);
    if (place == 2)
        keep_names();
    pthread_mutex_unlock(&one_at_a_time);
    errno = before;
    return result;
}

int fsync(int fd)
{
    return synchronise("fsync", fd);
}

int fdatasync(int fd)
{
    return synchronise("fdatasync", fd);
}
