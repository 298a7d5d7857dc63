//! Images on their way from one store to another, and back.

use super::*;

#[tokio::test]
async fn an_image_is_streamed_and_can_be_removed_again() {
    let host = Host::new(|engine| {
        engine.image_id = APP_ID.to_owned();
        engine.archive = archive_of(&format!("{APP} {APP_ID}"), 320);
    });
    let carried = host.carry("app:1").await.unwrap();
    assert_eq!(carried.means, Means::Streamed { instead: None });
    let bytes = carried.bytes;
    assert_eq!(bytes as usize, APP.len() + APP_ID.len() + 2 + 320 * CHUNK);
    assert_eq!(
        fs::metadata(host.root.path().join("images.archive"))
            .unwrap()
            .len(),
        bytes
    );
    assert_eq!(host.images(&containerd_endpoint()).await, [named(APP, APP_ID)]);
    for _ in 0..2 {
        host.remove(&containerd_endpoint(), APP).await;
        assert_eq!(
            host.containerd.records(),
            [],
            "neither the name nor the record of the id is left"
        );
    }
}

#[tokio::test]
async fn a_name_that_was_there_before_stays() {
    let host = Host::new(|engine| {
        engine.image_id = APP_ID.to_owned();
        engine.archive = archive_of(&format!("{APP} {APP_ID}"), 0);
    });
    host.write("images", &format!("docker.io/library/other:1 {APP_ID}\n"));
    host.carry(APP).await.unwrap();
    host.remove(&containerd_endpoint(), APP).await;
    assert_eq!(
        host.images(&containerd_endpoint()).await,
        [named("docker.io/library/other:1", APP_ID)]
    );
    assert!(
        host.containerd
            .records()
            .contains(&(APP_ID.to_owned(), APP_ID.to_owned()))
    );
}

#[tokio::test]
async fn a_tag_that_was_moved_is_carried_and_given_back_to_the_image_that_had_it() {
    const OLD: &str = "sha256:00d1";
    let host = Host::new(|engine| {
        engine.image_id = APP_ID.to_owned();
        engine.archive = archive_of(&format!("{APP} {APP_ID}"), 1);
    });
    host.write("images", &format!("{APP} {OLD}\n"));
    let containerd = containerd_endpoint();
    host.carry(APP).await.unwrap();
    assert_eq!(host.images(&containerd).await, [named(APP, APP_ID)]);
    for _ in 0..2 {
        host.restore(&containerd, APP, Some(OLD)).await;
        assert_eq!(host.containerd.records(), [named(OLD, OLD), named(APP, OLD)]);
    }

    // The other way round.
    let host = Host::new(|engine| engine.loaded.lock().unwrap().push(named(APP, OLD)));
    host.write("images", &format!("{APP} {APP_ID}\n"));
    let step = into_docker();
    host.runtimes.carry_image(&step, APP).await.unwrap();
    assert_eq!(host.images(&step.to).await, [named(APP, APP_ID)]);
    for _ in 0..2 {
        host.restore(&step.to, APP, Some(OLD)).await;
        assert_eq!(*host.engine.loaded.lock().unwrap(), [named(APP, OLD)]);
    }
    // Somebody has removed what had the name: it stays where it is.
    host.restore(&step.to, APP, Some("sha256:gone")).await;
    assert_eq!(*host.engine.loaded.lock().unwrap(), [named(APP, OLD)]);
}

#[tokio::test]
async fn an_image_that_got_a_second_name_and_lost_its_first_one_gets_that_back() {
    const OTHER: &str = "docker.io/library/another:1";
    let host = Host::new(|engine| engine.image_id = APP_ID.to_owned());
    // What the carries have left: OTHER is new, and APP was its image's name.
    host.write(
        "images",
        &format!("{APP} sha256:bbbb\n{OTHER} {APP_ID}\n{APP_ID} {APP_ID}\n"),
    );
    let before = [
        (APP.to_owned(), Some(APP_ID.to_owned())),
        (OTHER.to_owned(), None),
    ];
    let containerd = containerd_endpoint();
    host.runtimes
        .restore_images(&containerd, &before.into())
        .await
        .unwrap();
    assert_eq!(host.images(&containerd).await, [named(APP, APP_ID)]);
}

#[tokio::test]
async fn an_image_that_is_pinned_by_digest_keeps_that_name() {
    let host = Host::new(|engine| {
        engine.image_id = APP_ID.to_owned();
        engine.archive = archive_of(&format!("none {APP_ID}"), 0);
    });
    let pinned = "docker.io/library/app@sha256:bbbb";
    host.carry(pinned).await.unwrap();
    assert!(
        host.containerd
            .records()
            .contains(&(pinned.to_owned(), APP_ID.to_owned()))
    );
}

#[tokio::test]
async fn another_name_of_an_image_costs_nothing() {
    let host = Host::new(|engine| {
        engine.image_id = APP_ID.to_owned();
        engine.archive = archive_of(&format!("{APP} {APP_ID}"), 1);
    });
    host.carry(APP).await.unwrap();
    let pinned = "docker.io/library/app@sha256:bbbb";
    let carried = host.carry(pinned).await.unwrap();
    assert_eq!((carried.bytes, carried.means), (0, Means::Named));
    assert!(
        host.containerd
            .records()
            .contains(&(pinned.to_owned(), APP_ID.to_owned()))
    );
}

#[tokio::test]
async fn an_image_that_cannot_be_linked_is_streamed_and_the_reason_is_kept() {
    let host = Host::new(|engine| {
        engine.image_id = APP_ID.to_owned();
        engine.archive = archive_of(&format!("{APP} {APP_ID}"), 1);
    });
    let data_root = Some(path("/var/lib/docker"));
    let step = into_containerd(Layers::Linked { data_root });
    let carried = host.runtimes.carry_image(&step, APP).await.unwrap();
    let Means::Streamed { instead: Some(why) } = carried.means else {
        panic!("{carried:?}");
    };
    assert!(why.contains("/var/lib/docker/image/overlay2/imagedb"), "{why}");
    host.remove(&containerd_endpoint(), APP).await;
    let log = host.containerd.world.lock().unwrap().log.clone();
    assert_eq!(
        log,
        ["end lease transship"],
        "what an interrupted link left goes too"
    );
}

#[tokio::test]
async fn an_image_goes_into_docker_and_only_its_name_goes_again() {
    let host = Host::new(|_| {});
    host.write("images", &format!("{APP} {APP_ID}\n"));
    let other = ("docker.io/library/other:1".to_owned(), APP_ID.to_owned());
    host.engine.loaded.lock().unwrap().push(other.clone());
    let step = into_docker();
    let carried = host.runtimes.carry_image(&step, APP).await.unwrap();
    assert_eq!(
        (carried.bytes, carried.means),
        (300_000, Means::Streamed { instead: None })
    );
    assert_eq!(host.images(&step.to).await, [named(APP, APP_ID), other.clone()]);
    for _ in 0..2 {
        host.remove(&step.to, APP).await;
        assert_eq!(*host.engine.loaded.lock().unwrap(), std::slice::from_ref(&other));
    }
    host.write("images", &format!("{APP} sha256:discarded\n"));
    let error = host
        .runtimes
        .carry_image(&step, APP)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(APP) && error.contains("pull the image into Docker"),
        "{error}"
    );
}

#[tokio::test]
async fn what_goes_wrong_with_an_image_is_said() {
    let other_id = format!("{APP} sha256:cccc");
    let good = format!("{APP} {APP_ID}");
    for (id, archive, wanted) in [
        ("", archive_of(&good, 0), "has no image"),
        (APP_ID, archive_of("refused", 0), "invalid tar header"),
        (
            APP_ID,
            Archive {
                breaks: true,
                ..archive_of(&good, 3)
            },
            "could not export",
        ),
    ] {
        let host = Host::new(|engine| (engine.image_id, engine.archive) = (id.to_owned(), archive));
        let error = host.carry(APP).await.unwrap_err();
        assert!(error.contains(wanted) && error.contains(APP), "{error}");
    }
    let host = Host::new(|engine| {
        engine.image_id = APP_ID.to_owned();
        engine.archive = archive_of(&other_id, 0);
    });
    let error = host.carry(APP).await.unwrap_err();
    assert!(error.contains("sha256:cccc") && error.contains(APP_ID), "{error}");
}
